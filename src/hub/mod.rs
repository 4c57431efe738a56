//! stub
use std::{rc::Rc, sync::Arc, time::Duration};
use crate::{config, drain::Drain, exchange::{Client, Request, Response}};
pub struct Hub; pub struct Inbox; pub struct Policy; pub struct Shard; pub enum Refusal {}
impl Hub { pub fn new(_w: usize) -> (Arc<Self>, Vec<Inbox>) { (Arc::new(Self), vec![]) }
 pub async fn install(&self, _p: Option<Arc<Policy>>) {} pub async fn close(&self, _o: Duration) {} }
impl Policy { pub fn compile(_h: &config::Hub) -> Self { Self } pub fn path(&self) -> &str { "" } }
impl Shard { pub fn start(_w: usize, _h: Arc<Hub>, _i: Inbox, _p: Option<Arc<Policy>>, _d: &Drain) -> Rc<Self> { Rc::new(Self) }
 pub async fn answer(self: &Rc<Self>, _r: Request, _c: &Client) -> Result<Response, Refusal> { todo!() } }
impl Refusal { pub fn reason(&self) -> &'static str { "" } pub fn response(&self) -> Response { todo!() } }

//! stub
use crate::{drain::Drain, exchange::*, upstream::*};
use std::rc::Rc;
pub struct Proxy;
pub struct ForwardError;
impl From<ForwardError> for Fault {
    fn from(_: ForwardError) -> Self {
        Self::NO_HOST
    }
}
impl Proxy {
    pub fn compile(_u: Upstream, _s: Option<String>, _up: bool, _d: bool) -> Self {
        Self
    }
    pub fn upstream(&self) -> &Upstream {
        todo!()
    }
    pub async fn answer(
        &self,
        _r: Request,
        _c: &Client,
        _p: &Peer,
        _po: &Rc<Pools>,
        _d: &Drain,
    ) -> Result<Response, ForwardError> {
        todo!()
    }
}

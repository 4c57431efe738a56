//! Who may come to a route, and how the application is told who it is.

use std::sync::Arc;

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::auth::{self, Auth, Denial, Identity, Provider};
use crate::config::RouteAuth;
use crate::exchange::{Body, Client, Fault, Request, Response, Side};

/// Whom a route is for.
pub struct Door {
    providers: Vec<Arc<Provider>>,
    login: Option<HeaderValue>,
}

/// Why somebody is not let in.
pub enum Shut {
    Fault(Fault),
    /// To where one logs in.
    Login(HeaderValue),
}

/// The edge's own word for who it is; nobody else's is passed on.
const USER: HeaderName = HeaderName::from_static("x-vestibule-user");

const UNAUTHORIZED: Fault = Fault::new(401, Side::Client, "unauthorized");
const UNAVAILABLE: Fault = Fault::new(503, Side::Edge, "auth_unavailable");

impl Door {
    pub fn compile(words: &RouteAuth, auth: &Auth) -> Self {
        let login = words.login.as_ref().and_then(|path| HeaderValue::from_str(path).ok());
        Self { providers: auth.named(&words.by), login }
    }

    /// Lets the request pass, with the user's name on it.
    pub async fn admit(
        &self,
        request: &mut Request,
        client: &Client,
        auth: &Auth,
        users: &auth::Local,
    ) -> Result<(), Shut> {
        let shown = auth.all_shown(request.headers());
        let shown = shown.ok_or(Shut::Fault(Fault::new(400, Side::Client, "too_many_cookies")))?;
        match users.identify(&shown, client, &self.providers).await {
            Ok(known) => {
                let name = name_of(&known.identity).ok_or(Shut::Fault(UNAUTHORIZED))?;
                request.headers_mut().insert(USER, name);
                Ok(())
            }
            Err(Denial::Temporary(_) | Denial::Misconfigured(_)) => Err(Shut::Fault(UNAVAILABLE)),
            Err(Denial::Missing | Denial::Refused(_)) => Err(self.refuse(request)),
        }
    }

    fn refuse(&self, request: &Request) -> Shut {
        let page = request.method() == Method::GET
            && request.headers().get(header::ACCEPT).is_some_and(|accept| {
                accept.to_str().is_ok_and(|accept| accept.contains("text/html"))
            });
        match &self.login {
            Some(login) if page => Shut::Login(login.clone()),
            _ => Shut::Fault(UNAUTHORIZED),
        }
    }
}

/// A client cannot say who it is.
pub fn strip(request: &mut Request) {
    request.headers_mut().remove(USER);
}

pub fn to_login(login: HeaderValue) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(header::LOCATION, login);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Printable ASCII as it is; the rest, and `%`, as URLs write it.
fn name_of(identity: &Identity) -> Option<HeaderValue> {
    let mut name = String::with_capacity(identity.user.len());
    for byte in identity.user.bytes() {
        match byte {
            b'%' => name.push_str("%25"),
            byte if byte.is_ascii_graphic() => name.push(char::from(byte)),
            byte => name.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::from_str(&name).ok()
}

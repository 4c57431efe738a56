//! Who may come to a route, and how the application is told who it is.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::auth::{self, Auth, Denial, Identity, Passwords, Provider};
use crate::config::{RouteAuth, Timeouts};
use crate::exchange::{Body, Client, Fault, Peer, Request, Response, Side};
use crate::upstream::{CompileError, Pools, Registry};

use super::keeper::Keeper;
use super::page::Page;

/// Whom a route is for.
pub enum Door {
    Users { providers: Vec<Arc<Provider>>, login: Option<HeaderValue> },
    Passwords(Passwords),
    Keeper(Box<Keeper>),
}

/// Why somebody is not let in.
pub enum Shut {
    Fault(Fault),
    /// A page to log in at, a question for a password, or what another server says.
    Answer(Box<Response>, &'static str),
}

/// The edge's own word for who it is; nobody else's is passed on.
pub const USER: HeaderName = HeaderName::from_static("x-vestibule-user");
/// By whose word: users of two providers may have one name.
pub const PROVIDER: HeaderName = HeaderName::from_static("x-vestibule-provider");

const UNAUTHORIZED: Fault = Fault::new(401, Side::Client, "unauthorized");
const UNAVAILABLE: Fault = Fault::new(503, Side::Edge, "auth_unavailable");
const FOREIGN: Fault = Fault::new(403, Side::Client, "foreign_origin");
const TOO_MANY: Fault = Fault::new(429, Side::Client, "too_many_tries");

impl Door {
    pub fn compile(
        words: &RouteAuth,
        auth: &Auth,
        timeouts: &Timeouts,
        registry: &Arc<Registry>,
    ) -> Result<Self, CompileError> {
        Ok(match words {
            RouteAuth::Users { by, login } => {
                let login = login.as_ref().and_then(|path| HeaderValue::from_str(path).ok());
                Self::Users { providers: auth.named(by), login }
            }
            RouteAuth::Basic(words) => Self::Passwords(Passwords::compile(words)),
            RouteAuth::Forward(words) => {
                Self::Keeper(Box::new(Keeper::compile(words, timeouts, registry)?))
            }
        })
    }

    /// Headers that only who decides here may write.
    pub fn told(&self) -> &[HeaderName] {
        match self {
            Self::Keeper(keeper) => keeper.told(),
            Self::Users { .. } | Self::Passwords(_) => &[],
        }
    }

    /// Whom it is for, in words, and what becomes of the others.
    pub fn words(&self) -> String {
        match self {
            Self::Users { providers, login } => {
                let names: Vec<_> = providers.iter().map(|provider| &*provider.name).collect();
                let names = names.join(", else ");
                let login = login.as_ref().and_then(|login| login.to_str().ok());
                let pages = login.map(|login| format!(", pages are sent to {login}"));
                let pages = pages.unwrap_or_default();
                format!("auth.by: users of {names}; others get 401{pages}")
            }
            Self::Passwords(passwords) => {
                let (count, realm) = (passwords.count(), &passwords.realm);
                format!("basic: {count} with a password for {realm:?}; others get 401")
            }
            Self::Keeper(keeper) => {
                let place = keeper.place();
                format!("auth.forward: whom {place} answers 2xx; others get its answer, or 503")
            }
        }
    }

    /// What the application is told of who is let in.
    pub fn vouches(&self) -> Vec<(String, &'static str)> {
        match self {
            Self::Users { .. } => vec![
                (USER.to_string(), "(the user's id)"),
                (PROVIDER.to_string(), "(the provider that knows it)"),
            ],
            Self::Passwords(_) => vec![(USER.to_string(), "(the name that was given)")],
            Self::Keeper(keeper) => {
                let told = keeper.told().iter();
                told.map(|name| (name.to_string(), "(as auth.forward answers)")).collect()
            }
        }
    }

    /// A header that opens this door, which the application has no use for.
    pub fn keeps(&self) -> Option<HeaderName> {
        matches!(self, Self::Passwords(_)).then_some(header::AUTHORIZATION)
    }

    /// Lets the request pass, with the user's name on it; gives what the client is told in any case.
    pub async fn admit(
        &self,
        request: &mut Request,
        (client, peer, page): (&Client, &Peer, Page),
        auth: &Auth,
        (users, pools): (&auth::Local, &Rc<Pools>),
    ) -> Result<HeaderMap, Shut> {
        let found = match self {
            Self::Users { providers, .. } => {
                let shown = auth.all_shown(request.headers());
                let many = Fault::new(400, Side::Client, "too_many_cookies");
                let shown = shown.ok_or(Shut::Fault(many))?;
                let known = users.identify(&shown, client, providers).await;
                if page == Page::Foreign && known.as_ref().is_ok_and(|known| known.is_cookie()) {
                    return Err(Shut::Fault(FOREIGN));
                }
                known.map(|known| {
                    let provider = HeaderValue::from_str(&known.provider.name).ok();
                    (name_of(&known.identity), provider)
                })
            }
            Self::Passwords(passwords) => {
                let known = users.check_password(passwords, request.headers(), client).await;
                if page == Page::Foreign && known.is_ok() {
                    return Err(Shut::Fault(FOREIGN));
                }
                known.map(|identity| (name_of(&identity), None))
            }
            Self::Keeper(keeper) => {
                let asked = keeper.ask(request, client, peer, pools).await;
                return asked.map_err(|shut| match shut {
                    Ok(answer) => Shut::Answer(Box::new(answer), "unauthorized"),
                    Err(fault) => Shut::Fault(fault),
                });
            }
        };
        match found {
            Ok((name, provider)) => {
                request.headers_mut().insert(USER, name.ok_or(Shut::Fault(UNAUTHORIZED))?);
                request.headers_mut().extend(provider.map(|provider| (PROVIDER, provider)));
                self.keeps().inspect(|name| drop(request.headers_mut().remove(name)));
                Ok(HeaderMap::new())
            }
            Err(auth::TOO_MANY) => Err(Shut::Fault(TOO_MANY)),
            Err(Denial::Temporary(..) | Denial::Misconfigured(_)) => Err(Shut::Fault(UNAVAILABLE)),
            Err(Denial::Missing | Denial::Refused(_)) => Err(self.refuse(request)),
        }
    }

    fn refuse(&self, request: &Request) -> Shut {
        let page = request.method() == Method::GET
            && request.headers().get(header::ACCEPT).is_some_and(|accept| {
                accept.to_str().is_ok_and(|accept| accept.contains("text/html"))
            });
        match self {
            Self::Users { login: Some(login), .. } if page => {
                Shut::Answer(Box::new(to_login(login.clone())), "to_login")
            }
            Self::Passwords(passwords) => {
                let mut response = UNAUTHORIZED.response();
                let question = format!("Basic realm=\"{}\", charset=\"UTF-8\"", passwords.realm);
                if let Ok(question) = HeaderValue::try_from(question) {
                    response.headers_mut().insert(header::WWW_AUTHENTICATE, question);
                }
                Shut::Answer(Box::new(response), "unauthorized")
            }
            _ => Shut::Fault(UNAUTHORIZED),
        }
    }
}

fn to_login(login: HeaderValue) -> Response {
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

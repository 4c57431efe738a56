//! What a request would meet, and why; nothing is sent.

use http::{HeaderMap, Version};

use crate::exchange::headers::{self, Seen};
use crate::exchange::{Fault, Peer, Request};
use crate::next;

use super::application::{body_max, expects, from_disk};
use super::course::Course;
use super::door::Door;
use super::share::Lots;
use super::table::{Ask, Route, Site, Unmet};
use super::{Handler, Router, Way, set_path};

/// The way of one request, in words.
#[derive(Debug, Default)]
pub struct Explanation {
    pub site: Option<String>,
    pub route: Option<String>,
    /// Routes before it, and what of the request they do not mean.
    pub passed: Vec<(String, &'static str)>,
    /// Who answers, with what.
    pub answer: String,
    /// Known if the edge answers itself.
    pub status: Option<u16>,
    /// The stable word of a refusal.
    pub reason: Option<&'static str>,
    /// Where an answer of the edge's leads to.
    pub location: Option<String>,
    pub upstream: Option<String>,
    /// Whom the route is for, where it is not for everybody.
    pub door: Option<String>,
    /// What the upstream is asked for.
    pub target: Option<String>,
    /// Headers that it gets and the client has not sent, or not so.
    pub added: Vec<(String, String)>,
    /// Headers of the client's that it does not get.
    pub removed: Vec<String>,
    /// What is done to the response.
    pub response: Vec<String>,
    /// What must not be exceeded.
    pub limits: Vec<(&'static str, String)>,
}

impl Router {
    /// Goes the way of `answer` up to where something would be sent.
    pub fn explain(&self, mut request: Request, peer: &Peer) -> Explanation {
        *request.version_mut() = Version::HTTP_11;
        let mut told = Explanation::default();
        // As a client would come that has a certificate, where one is asked for.
        let mut peer = peer.clone();
        if let Some(tls) = &mut peer.tls {
            let site = tls.name.as_ref().and_then(|name| self.table.site(name));
            tls.authorities = site.and_then(|site| self.handshakes.authorities(site));
        }
        let peer = &peer;
        let client = match self.client(&request, peer) {
            Ok(client) => client,
            Err(fault) => return told.refused(fault),
        };
        let mut course = Course::begin(&request);
        let decided = self.decide(&request, (&client, peer), &mut course);
        told.place(&request, &client.host, &course);
        let (route, captures, changed) = match decided {
            Err(fault) => return told.refused(fault),
            Ok(Way::Health) => return told.answered("the edge, for its own health", 200),
            Ok(Way::Hub) => {
                "the hub".clone_into(&mut told.answer);
                return told;
            }
            Ok(Way::Answered(response, reason)) => {
                told.reason = reason;
                told.location = text(response.headers(), "location");
                return told.answered("the edge", response.status().as_u16());
            }
            Ok(Way::Route(route, captures, changed)) => (route, captures, changed),
        };
        told.limits.push(("body", format!("{} bytes", body_max(route, course.site))));
        told.limits
            .extend(route.body_rate.map(|rate| ("body_rate", format!("{rate} bytes a second"))));
        told.door = route.door.as_ref().map(Door::words);
        if let Handler::Redirect(redirect) = &route.handler {
            let capture = |name: &str| captures.get(name).map(str::to_owned);
            let response = redirect.answer(&capture, request.uri().query());
            told.location = text(response.headers(), "location");
            return told.answered("a redirect", response.status().as_u16());
        }
        match from_disk(&request, changed.as_deref(), route, &captures, &course) {
            Some(Ok(response)) => {
                let from = match &route.handler {
                    Handler::Files(files) => format!("a file of {}", files.root().display()),
                    _ => "a file of the application's build".to_owned(),
                };
                told.location = text(response.headers(), "location");
                return told.answered(&from, response.status().as_u16());
            }
            Some(Err(fault)) => return told.refused(fault),
            None => (),
        }
        let Handler::Proxy(proxy) = &route.handler else { return told.refused(Fault::NO_ROUTE) };
        let before = request.headers().clone();
        self.unvouch(request.headers_mut(), course.seen, peer);
        let kept = route.door.as_ref().and_then(Door::keeps);
        kept.inspect(|name| drop(request.headers_mut().remove(name)));
        let expected: Option<next::Expects> =
            expects(&mut request, changed.as_deref(), route, course.site);
        told.upstream = Some(proxy.targets().to_owned());
        let most = proxy.response_max().map(|max| ("response_body", format!("{max} bytes")));
        told.limits.extend(most);
        if expected.is_some_and(next::Expects::is_image) {
            let images = course.site.and_then(|site| site.images.as_ref());
            told.limits.extend(images.map(|images| ("images", images.words())));
        }
        if let Some(path) = changed.filter(|_| proxy.rewrites())
            && let Err(fault) = set_path(&mut request, &path)
        {
            return told.refused(fault);
        }
        let seen = Seen::of(request.headers());
        match proxy.prepare(&mut request, (&client, peer), &seen) {
            Err(error) => return told.refused(error.into()),
            Ok((websocket, lines)) => {
                lines.set(request.headers_mut());
                let answer = match websocket {
                    Some(_) => "a tunnel to the upstream",
                    None if expected.is_some() => "the application",
                    None => "the upstream",
                };
                answer.clone_into(&mut told.answer);
            }
        }
        told.target = request.uri().path_and_query().map(ToString::to_string);
        told.added.push((headers::LOOP.to_owned(), "vestibule".to_owned()));
        told.compare(&before, request.headers());
        let vouched = route.door.iter().flat_map(Door::vouches);
        told.added.extend(vouched.map(|(name, value)| (name, value.to_owned())));
        told
    }
}

impl Explanation {
    fn refused(mut self, fault: Fault) -> Self {
        self.reason = Some(fault.reason);
        self.answered("the edge", fault.status)
    }

    fn answered(mut self, who: &str, status: u16) -> Self {
        who.clone_into(&mut self.answer);
        self.status = Some(status);
        self
    }

    /// Site and route, and those that were passed.
    fn place(&mut self, request: &Request, host: &str, course: &Course<'_>) {
        let Some(site) = course.site else { return };
        self.site = Some(site.host.as_str().to_owned());
        self.describe_response(site, course);
        let Some(found) = course.route else { return };
        let path = crate::config::canonical(request.uri().path()).unwrap_or_default();
        let ask = Ask {
            path: &path,
            query: request.uri().query(),
            host,
            method: request.method(),
            headers: request.headers(),
        };
        for (index, route) in site.routes.iter().enumerate() {
            let name = name(index, route);
            if std::ptr::eq(route, found) {
                self.route = Some(name);
                return;
            }
            // A lot that was drawn anew would say nothing; this route was not meant.
            let unmet = route.judge(&ask, &mut Lots::default()).err().unwrap_or(Unmet::Share);
            self.passed.push((name, unmet.words()));
        }
    }

    fn describe_response(&mut self, site: &Site, course: &Course<'_>) {
        let hsts = site.treatment.hsts.as_ref().filter(|_| course.secure);
        let hsts = hsts.and_then(|value| value.to_str().ok());
        self.response.extend(hsts.map(|value| format!("set strict-transport-security: {value}")));
        let route = course.route;
        let cors = route.and_then(|route| route.cors.as_ref()).or(site.cors.as_ref());
        self.response.extend(cors.map(|_| "set what cors says".to_owned()));
        self.response.extend(site.treatment.headers.words());
        self.response.extend(route.map(|route| route.headers.words()).unwrap_or_default());
    }

    fn compare(&mut self, before: &HeaderMap, after: &HeaderMap) {
        let values = |headers: &HeaderMap, name: &str| {
            let all = headers.get_all(name).iter().map(|value| value.as_bytes().to_vec());
            all.collect::<Vec<_>>()
        };
        for name in after.keys().map(http::HeaderName::as_str) {
            let now = values(after, name);
            if values(before, name) != now {
                let now = now.iter().map(|value| String::from_utf8_lossy(value).into_owned());
                self.added.extend(now.map(|value| (name.to_owned(), value)));
            }
        }
        let gone = before.keys().filter(|name| !after.contains_key(*name));
        self.removed.extend(gone.map(|name| name.as_str().to_owned()));
        self.added.sort();
        self.removed.sort();
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn name(index: usize, route: &Route) -> String {
    match &route.path {
        Some(path) => format!("routes[{index}] {path}"),
        None => "next".to_owned(),
    }
}

impl Unmet {
    fn words(self) -> &'static str {
        match self {
            Self::Path => "another path",
            Self::Host => "another host",
            Self::Method => "another method",
            Self::Header => "a header that is not there, or not so",
            Self::Cookie => "a cookie that is not there, or not so",
            Self::Query => "a parameter that is not there, or not so",
            Self::Share => "a lot that did not win",
        }
    }
}

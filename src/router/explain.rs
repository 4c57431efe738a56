//! What a request would meet, and why; nothing is sent.

use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Version};

use crate::compress::Choice;
use crate::exchange::headers::{self, Seen, Witness as _};
use crate::exchange::{Client, Fault, Peer, Request};
use crate::next;
use crate::observe::access::TRACEPARENT;
use crate::proxy;
use crate::upstream::says_length;

use super::application::{body_max, expects, from_disk, sees_visitors, set_path};
use super::changes::{Added, Changes, Removed};
use super::course::Course;
use super::door::Door;
use super::share::Lots;
use super::table::{Ask, Route, Site, Unmet};
use super::{Handler, Router, Way};

/// The way of one request, in words.
#[derive(Debug, Default)]
pub struct Explanation {
    pub site: Option<String>,
    pub route: Option<String>,
    /// What its pattern's parts have found in the path.
    pub captured: Vec<(String, String)>,
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
    pub added: Vec<Added>,
    /// Headers of the client's that it does not get.
    pub removed: Vec<Removed>,
    /// What is done to the response.
    pub response: Vec<String>,
    /// What must not be exceeded.
    pub limits: Vec<(&'static str, String)>,
}

impl Router {
    /// Goes the way of `answer` up to where something would be sent; `pace` is how many bytes of a
    /// body must come a second where no route says otherwise, 0 if any.
    pub fn explain(&self, mut request: Request, peer: &Peer, pace: u64) -> Explanation {
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
        let all = self.per_ip(&request, &client).map(|(_, words)| words.clone());
        told.limits.extend(all.map(|words| ("per_ip.requests", words)));
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
        told.captured = captures.iter().map(|(name, part)| (name.into(), part.into())).collect();
        let most = Some(body_max(route, course.site)).filter(|max| *max < u64::MAX);
        told.limits.extend(most.map(|max| ("body", format!("{max} bytes"))));
        let slowest = Some(route.body_rate.unwrap_or(pace)).filter(|rate| *rate > 0);
        told.limits.extend(slowest.map(|rate| ("body_rate", format!("{rate} bytes a second"))));
        told.limits.extend(route.quota.as_ref().map(|quota| ("rate", quota.words.clone())));
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
                let choice = course.site.map(|site| site.compress.accepted(&request));
                told.response.extend(choice.and_then(compressed));
                return told.answered(&from, response.status().as_u16());
            }
            Some(Err(fault)) => return told.refused(fault),
            None => (),
        }
        told.sent(self, request, (&client, peer), (route, changed), &course)
    }
}

impl Explanation {
    /// The application is told of its trace.
    pub fn traced(&mut self) {
        self.added.retain(|one| one.name != TRACEPARENT.as_str());
        self.added.push(Added {
            name: TRACEPARENT.to_string(),
            value: "(the edge's span, where its trace is kept)".to_owned(),
            why: "traces",
        });
    }

    /// What an upstream is sent of it.
    fn sent(
        mut self,
        router: &Router,
        mut request: Request,
        (client, peer): (&Client, &Peer),
        (route, changed): (&Route, Option<String>),
        course: &Course<'_>,
    ) -> Self {
        let Handler::Proxy(proxy) = &route.handler else { return self.refused(Fault::NO_ROUTE) };
        let mut changes = Changes::of(request.headers());
        router.unvouch(request.headers_mut(), course.seen, peer, &mut changes);
        if let Some(door) = &route.door {
            headers::strip_nominated(request.headers_mut());
            changes.see("is named by connection", request.headers());
            door.keeps().inspect(|name| drop(request.headers_mut().remove(name)));
            changes.see("is for the door alone", request.headers());
        }
        let expected: Option<next::Expects> =
            expects(&mut request, changed.as_deref(), route, course);
        changes.see("nothing that is there depends on it", request.headers());
        let choice = course.site.map(|site| site.compress.choose(&mut request));
        changes.see("bodies are compressed here, and once", request.headers());
        self.response.extend(choice.and_then(compressed));
        self.upstream = Some(proxy.targets().to_owned());
        let most = proxy.response_max().map(|max| ("response_body", format!("{max} bytes")));
        self.limits.extend(most);
        if expected.is_some_and(next::Expects::is_image) {
            let images = course.site.and_then(|site| site.images.as_ref());
            self.limits.extend(images.map(|images| ("images", images.words())));
            if images.is_some() && route.door.is_none() && !sees_visitors(course.site) {
                next::normalize(request.headers_mut());
                changes.see("pictures are the same for all", request.headers());
            }
        }
        if let Some(path) = changed.filter(|_| proxy.rewrites())
            && let Err(fault) = set_path(&mut request, &path)
        {
            return self.refused(fault);
        }
        let seen = Seen::of(request.headers());
        match proxy.prepare(&mut request, (client, peer), &seen, &mut changes) {
            Err(error) => return self.refused(error.into()),
            Ok((websocket, lines)) => {
                lines.set(request.headers_mut());
                changes.see(proxy::FORWARDED, request.headers());
                let answer = match websocket {
                    Some(_) => "a tunnel to the upstream",
                    None if expected.is_some() => "the application",
                    None => "the upstream",
                };
                answer.clone_into(&mut self.answer);
            }
        }
        self.target = request.uri().path_and_query().map(ToString::to_string);
        frame(&mut request, &mut changes);
        (self.added, self.removed) = changes.told();
        let vouched = route.door.iter().flat_map(Door::vouches);
        self.added.extend(vouched.map(|(name, value)| Added {
            name,
            value: value.to_owned(),
            why: "the door says who asks",
        }));
        self
    }

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
}

/// What the codec does to a head: the body's frame is its own, and each edge says that it was here.
fn frame(request: &mut Request, changes: &mut Changes) {
    let method = request.method().clone();
    let fields = request.headers_mut();
    let framed = changes.first(&TRANSFER_ENCODING).cloned();
    let length = fields.get(CONTENT_LENGTH).cloned();
    fields.remove(CONTENT_LENGTH);
    match (framed, length) {
        (Some(coding), _) => drop(fields.insert(TRANSFER_ENCODING, coding)),
        (None, Some(length)) if length != "0" => drop(fields.insert(CONTENT_LENGTH, length)),
        (None, _) => {
            if says_length(&method) {
                fields.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            fields.remove(EXPECT);
        }
    }
    changes.see("frames the body", fields);
    fields.append(headers::LOOP, HeaderValue::from_static("vestibule"));
    changes.see("counts how often a request passes here", fields);
}

/// How bodies come to the client.
fn compressed(choice: Choice) -> Option<String> {
    match choice.coding() {
        Some(coding) => Some(format!("compress with {}, where that is worth it", coding.name())),
        None => choice.varies().then(|| "compress nothing: the client takes none of it".to_owned()),
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

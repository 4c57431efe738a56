//! What is found out about a request on its way, and what its response owes to it.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};

use crate::exchange::headers::Seen;
use crate::exchange::{Fault, Request, Response};
use crate::next;

use super::keeper;
use super::pages::{Pages, Wants};
use super::share::Lots;
use super::table::{Route, Site};

/// One request's way through the router.
#[derive(Default)]
pub struct Course<'a> {
    /// Set once the response is the site's to treat.
    pub site: Option<&'a Site>,
    pub route: Option<&'a Route>,
    pub lots: Lots,
    pub secure: bool,
    /// A page of its own for the fault.
    pub page: Option<Arc<str>>,
    /// What whoever let the client in has to tell it.
    pub told: HeaderMap,
    /// When a client that was refused may come back.
    pub retry: Option<HeaderValue>,
    /// What names the request came with.
    pub seen: Seen,
    wants: Wants,
    origin: Option<HeaderValue>,
    preflight: bool,
}

impl<'a> Course<'a> {
    pub fn begin(request: &Request) -> Self {
        let headers = request.headers();
        let seen = Seen::of(headers);
        let origin = seen.may_have("origin").then(|| headers.get(header::ORIGIN)).flatten();
        let (wants, origin) = (Wants::of(headers, &seen), origin.cloned());
        Self { wants, origin, seen, ..Self::default() }
    }

    /// True if a page of this origin may act for its visitor, cookies and all.
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        let cors = self.route.and_then(|route| route.cors.as_ref());
        let cors = cors.or_else(|| self.site.and_then(|site| site.cors.as_ref()));
        cors.is_some_and(|cors| cors.trusts(origin))
            || self.site.is_some_and(|site| next::is_listed(origin, &site.action_origins))
    }

    /// What a browser asks before it sends a request, answered here where there are rules for it.
    pub fn preflight(&mut self, request: &Request) -> Option<Response> {
        let cors = self.route.and_then(|route| route.cors.as_ref());
        let cors = cors.or_else(|| self.site.and_then(|site| site.cors.as_ref()))?;
        let answer = cors.preflight(request.method(), request.headers())?;
        self.preflight = true;
        Some(answer)
    }

    /// The answer to what nobody else has answered.
    pub fn fault(&self, fault: Fault) -> Response {
        let none = Pages::default();
        let pages = self.site.map_or(&none, |site| &site.pages);
        let mut response = pages.answer(fault, &self.wants, self.page.as_ref());
        if fault.wait > 0 {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(fault.wait));
        }
        if let Some(retry) = &self.retry {
            response.headers_mut().insert(header::RETRY_AFTER, retry.clone());
        }
        response
    }

    /// Does to a response what its site and its route say.
    pub fn treat(&self, headers: &mut HeaderMap) {
        let Some(site) = self.site else { return };
        keeper::tell(&self.told, headers);
        let cors = self.route.and_then(|route| route.cors.as_ref()).or(site.cors.as_ref());
        if let Some(cors) = cors {
            cors.apply(self.origin.as_ref(), headers, self.preflight);
        }
        // What caches keep for ever must not hand one client's lot to all others.
        let cached = headers.get(header::CACHE_CONTROL);
        let kept =
            |words: &HeaderValue| memchr::memmem::find(words.as_bytes(), b"immutable").is_some();
        if !cached.is_some_and(kept) {
            for cookie in self.lots.cookies(self.secure) {
                headers.append(header::SET_COOKIE, cookie);
            }
        }
        if let Some(hsts) = site.treatment.hsts.as_ref().filter(|_| self.secure) {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        site.treatment.headers.apply(headers);
        if let Some(route) = self.route {
            route.headers.apply(headers);
        }
    }
}

//! Everything compiled from one configuration, frozen; and what outlives it.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::auth::Auth;
use crate::config::{Config, Timeouts};
use crate::hub;
use crate::router::Router;
use crate::tls::acme::Proofs;
use crate::tls::{Acceptor, CertificateError, Certificates, Tickets};
use crate::upstream::{self, Registry};

/// What a reload replaces. Never changes after `compile`.
pub struct Snapshot {
    config: Config,
    generation: u64,
    router: Router,
    tls: Option<Acceptor>,
    certificates: Arc<Certificates>,
    hub: Option<Arc<hub::Policy>>,
    auth: Arc<Auth>,
}

/// What a reload keeps.
pub struct Resident {
    pub hub: Arc<hub::Hub>,
    pub registry: Arc<Registry>,
    pub tickets: Tickets,
    pub proofs: Proofs,
}

/// Why a checked configuration cannot run here.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("tls.certs: {0}")]
    Certificates(#[from] CertificateError),
    #[error("{0}")]
    Auth(String),
    #[error("{0}")]
    Upstream(#[from] upstream::CompileError),
    #[error("tls: {0}")]
    Tls(#[from] crate::tls::TlsError),
}

/// The snapshot in force; swapped whole.
#[derive(Clone)]
pub struct Current(Arc<ArcSwap<Snapshot>>);

impl Snapshot {
    pub fn compile(
        config: Config,
        generation: u64,
        resident: &Resident,
    ) -> Result<Self, CompileError> {
        let certificates = Arc::new(Certificates::read(&config)?);
        let auth =
            Arc::new(Auth::compile(&config, &resident.registry).map_err(CompileError::Auth)?);
        let hub = config
            .hub
            .as_ref()
            .map(|hub| hub::Policy::compile(hub, &config, &resident.registry, &auth).map(Arc::new))
            .transpose()?;
        let has_certificate = |host: &str| certificates.covers(host);
        let router = Router::compile(
            &config,
            (hub.clone(), Arc::clone(&auth)),
            &resident.registry,
            resident.proofs.http().clone(),
            &has_certificate,
        )?;
        let tls = if certificates.is_empty() {
            None
        } else {
            let (tickets, proofs) = (&resident.tickets, &resident.proofs);
            Some(Acceptor::compile(&config, &certificates, tickets, proofs)?)
        };
        Ok(Self { config, generation, router, tls, certificates, hub, auth })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn router(&self) -> &Router {
        &self.router
    }

    /// `None` while there is no certificate.
    pub fn tls(&self) -> Option<&Acceptor> {
        self.tls.as_ref()
    }

    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    pub fn hub(&self) -> Option<&Arc<hub::Policy>> {
        self.hub.as_ref()
    }

    pub fn auth(&self) -> &Arc<Auth> {
        &self.auth
    }

    pub fn connections_max(&self) -> usize {
        self.config.limits.connections
    }

    pub fn headers_max(&self) -> usize {
        self.config.limits.headers
    }

    pub fn timeouts(&self) -> &Timeouts {
        &self.config.timeouts
    }
}

impl Current {
    pub fn new(first: Snapshot) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(first)))
    }

    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    pub fn install(&self, next: Snapshot) {
        self.0.store(Arc::new(next));
    }
}

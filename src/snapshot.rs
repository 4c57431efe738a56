//! Everything compiled from one configuration, frozen; and what outlives it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::auth::Auth;
use crate::config::{Action, Config, Timeouts};
use crate::hub;
use crate::observe::Format;
use crate::observe::trace::Share;
use crate::router::{Handshake, Kept, Meter, Router};
use crate::tls::acme::Proofs;
use crate::tls::{Acceptor, Authorities, CertificateError, Certificates, Tickets};
use crate::upstream::{self, Registry};

/// What a reload replaces. Never changes after `compile`.
pub struct Snapshot {
    config: Config,
    generation: u64,
    router: Router,
    tls: Option<Acceptor>,
    certificates: Arc<Certificates>,
    lines: Option<Arc<Format>>,
    hub: Option<Arc<hub::Policy>>,
    auth: Arc<Auth>,
}

/// What a reload keeps.
pub struct Resident {
    pub hub: Arc<hub::Hub>,
    pub registry: Arc<Registry>,
    pub kept: Kept,
    pub tickets: Tickets,
    pub proofs: Proofs,
    pub meter: Arc<Meter>,
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
    #[error("sites.{site}: {path} is no folder", path = path.display())]
    Folder { site: String, path: PathBuf },
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
        check_folders(&config)?;
        let (certificates, authorities, tls) = secured(&config, resident)?;
        let auth =
            Arc::new(Auth::compile(&config, &resident.registry).map_err(CompileError::Auth)?);
        let hub = config
            .hub
            .as_ref()
            .map(|hub| hub::Policy::compile(hub, &config, &resident.registry, &auth).map(Arc::new))
            .transpose()?;
        let router = Router::compile(
            &config,
            (hub.clone(), Arc::clone(&auth)),
            (&resident.registry, &resident.kept, &resident.meter),
            resident.proofs.http().clone(),
            &handshakes(&certificates, &authorities),
        )?;
        let lines = Format::compile(&config.log.access).map(Arc::new);
        Ok(Self { config, generation, router, tls, certificates, hub, auth, lines })
    }

    /// The same with the certificates that are there now. Nothing else is read or compiled anew:
    /// what may be wrong with that keeps no certificate from being renewed.
    pub fn with_certificates(&self, resident: &Resident) -> Result<Self, CompileError> {
        let (certificates, authorities, tls) = secured(&self.config, resident)?;
        let router =
            self.router.with_handshakes(&self.config, &handshakes(&certificates, &authorities));
        let (config, hub, auth) = (self.config.clone(), self.hub.clone(), Arc::clone(&self.auth));
        let (generation, lines) = (self.generation, self.lines.clone());
        Ok(Self { config, generation, router, tls, certificates, hub, auth, lines })
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

    /// How exchanges' lines are written; `None` if they have none.
    pub fn lines(&self) -> Option<&Arc<Format>> {
        self.lines.as_ref()
    }

    /// How many exchanges are spans of traces; `None` if none is.
    pub fn traced(&self) -> Option<Share> {
        self.config.traces.as_ref().map(|traces| Share(traces.share))
    }

    /// Connections that an address may have, if that is limited for it.
    pub fn connections_per_ip(&self, address: IpAddr) -> Option<u64> {
        let max = self.config.limits.per_ip.connections?;
        let trusted = self.config.trust.iter().any(|block| block.contains(address));
        (!trusted).then(|| u64::try_from(max).unwrap_or(u64::MAX))
    }

    pub fn connections_max(&self) -> usize {
        self.config.limits.connections
    }

    pub fn headers_max(&self) -> usize {
        self.config.limits.headers
    }

    /// Bytes a second that requests' bodies come with where no route says otherwise; 0 is any.
    pub fn body_rate(&self) -> u64 {
        self.config.limits.body_rate.0
    }

    pub fn timeouts(&self) -> &Timeouts {
        &self.config.timeouts
    }
}

type Secured = (Arc<Certificates>, Authorities, Option<Acceptor>);

/// What handshakes take, as it is on the disk.
fn secured(config: &Config, resident: &Resident) -> Result<Secured, CompileError> {
    let certificates = Arc::new(Certificates::read(config)?);
    let authorities = Authorities::read(config).map_err(crate::tls::TlsError::from)?;
    let (tickets, proofs) = (&resident.tickets, &resident.proofs);
    let tls = if certificates.is_empty() {
        None
    } else {
        Some(Acceptor::compile(config, (&certificates, &authorities), tickets, proofs)?)
    };
    Ok((certificates, authorities, tls))
}

fn handshakes(
    certificates: &Certificates,
    authorities: &Authorities,
) -> impl Fn(&str) -> Handshake {
    move |host: &str| Handshake {
        possible: certificates.covers(host),
        authorities: authorities.of(host).map(|believed| believed.id),
    }
}

/// What is served from the disk must be there, or it was misspelt.
fn check_folders(config: &Config) -> Result<(), CompileError> {
    for site in &config.sites {
        let roots = site.routes.iter().filter_map(|route| match &route.action {
            Action::Files(files) => Some(&files.root),
            _ => None,
        });
        let builds = site.build.iter().map(|build| &build.path);
        if let Some(path) = roots.chain(builds).find(|path| !path.is_dir()) {
            let site = site.host.as_str().to_owned();
            return Err(CompileError::Folder { site, path: path.clone() });
        }
    }
    Ok(())
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

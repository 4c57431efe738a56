//! A configuration as the file that would say it, every default written out.

use std::path::{self, Path};

use super::edge_show;
use super::routes::show_percent;
use super::units::{show_duration, show_size, show_size_or_none};
use super::yaml::Yaml;
use super::{
    AccessFormat, AccessTo, Acme, AcmeChallenge, Action, Adapter, AdminAddress, AdminUi, Audience,
    Build, Config, Cors, EventKind, EventRule, Hooks, Hsts, Hub, Images, Level, Listen, LogFormat,
    Maintenance, MemoryMax, Namespace, NamespaceAuth, PerIp, Protocol, RateBy, Recovery, Redis,
    RedisServers, Relay, RoomChannels, Route, RouteRate, Rule, Share, Site, TlsVersion, Together,
    Traces, Upstream,
};

impl Config {
    /// The effective configuration as YAML that reads the same.
    ///
    /// Paths are absolute. A secret shows where it comes from, or `***` if the file itself holds it.
    pub fn show(&self) -> String {
        self.tree().print()
    }

    /// What would be different with `after`, a line each; secrets of the file's own are not told.
    pub fn changes(&self, after: &Self) -> Vec<String> {
        super::changes::changes(&self.tree(), &after.tree())
    }

    fn tree(&self) -> Yaml {
        let file = Yaml::map([
            ("listen", self.listen.yaml()),
            ("state", Yaml::text(absolute(&self.state))),
            ("workers", Yaml::word(self.workers)),
            ("trust", Yaml::texts(&self.trust)),
            ("tls", self.tls()),
            ("limits", self.limits()),
            ("timeouts", self.timeouts()),
        ]);
        let sites = self.sites.iter().map(|site| (site.host.as_str().to_owned(), site.yaml()));
        let sites = (!self.sites.is_empty()).then(|| Yaml::named(sites));
        let to = match &self.log.access.to {
            AccessTo::Stdout => Yaml::text("stdout"),
            AccessTo::File(path) => Yaml::text(absolute(path)),
            AccessTo::Off => Yaml::text("none"),
        };
        let log = Yaml::map([
            (
                "access",
                Yaml::map([
                    ("to", to),
                    ("format", Yaml::text(self.log.access.format.word())),
                    ("redact", Yaml::texts(&self.log.access.redact)),
                ]),
            ),
            ("level", Yaml::text(self.log.level.word())),
            ("format", Yaml::text(self.log.format.word())),
            ("events", Yaml::texts(self.log.events.iter().map(|kind| kind.word()))),
        ]);
        let auth = self.auth.iter().map(|provider| (provider.name.clone(), provider.yaml()));
        let auth = (!self.auth.is_empty()).then(|| Yaml::named(auth));
        file.with("sites", sites)
            .with("auth", auth)
            .with("hub", self.hub.as_ref().map(Hub::yaml))
            .with("log", Some(log))
            .with("metrics", Some(Yaml::map([("prometheus", Yaml::word(self.metrics))])))
            .with("traces", self.traces.as_ref().map(Traces::yaml))
            .with(
                "shutdown",
                Some(Yaml::map([("grace", Yaml::text(show_duration(self.shutdown.grace)))])),
            )
    }

    fn tls(&self) -> Yaml {
        let min = match self.tls.min {
            TlsVersion::V12 => "1.2",
            TlsVersion::V13 => "1.3",
        };
        Yaml::map([("certs", Yaml::text(absolute(&self.tls.certs))), ("min", Yaml::text(min))])
            .with("acme", self.tls.acme.as_ref().map(Acme::yaml))
    }

    fn limits(&self) -> Yaml {
        Yaml::map([
            ("connections", Yaml::word(self.limits.connections)),
            ("per_ip", self.limits.per_ip.yaml()),
            ("headers", Yaml::text(bytes(self.limits.headers))),
            ("body", Yaml::text(show_size(self.limits.body))),
            ("body_rate", Yaml::text(self.limits.body_rate)),
            ("response_body", Yaml::text(show_size_or_none(self.limits.response_body))),
        ])
    }

    fn timeouts(&self) -> Yaml {
        let timeouts = &self.timeouts;
        let all = [
            ("handshake", timeouts.handshake),
            ("head", timeouts.head),
            ("body_idle", timeouts.body_idle),
            ("idle", timeouts.idle),
            ("connect", timeouts.connect),
            ("first_byte", timeouts.first_byte),
        ];
        Yaml::map(all.map(|(name, duration)| (name, Yaml::text(show_duration(duration)))))
    }
}

fn response_body(max: u64) -> Yaml {
    Yaml::text(show_size_or_none(Some(max).filter(|max| *max < u64::MAX)))
}

impl Traces {
    fn yaml(&self) -> Yaml {
        Yaml::map([
            ("to", Yaml::text(format!("{}{}", self.to, self.path))),
            ("share", Yaml::text(show_percent(self.share))),
            ("service", Yaml::text(&self.service)),
        ])
        .with("header", self.header.as_ref().map(|header| Yaml::raw(header.written())))
    }
}

pub fn absolute(path: &Path) -> String {
    path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

fn bytes(size: usize) -> String {
    show_size(u64::try_from(size).unwrap_or(u64::MAX))
}

impl Acme {
    fn yaml(&self) -> Yaml {
        let challenge = match self.challenge {
            AcmeChallenge::Http => "http-01",
            AcmeChallenge::TlsAlpn => "tls-alpn-01",
        };
        let eab = self.eab.as_ref().map(|eab| {
            let key = eab.key.as_ref().map(|key| Yaml::raw(key.written()));
            Yaml::map([("id", Yaml::text(&eab.id))]).with("key", key)
        });
        Yaml::map([
            ("email", Yaml::text(&self.email)),
            ("directory", Yaml::text(&self.directory)),
            ("challenge", Yaml::text(challenge)),
        ])
        .with("ca", self.ca.as_deref().map(|file| Yaml::text(absolute(file))))
        .with("eab", eab)
    }
}

impl Listen {
    fn yaml(&self) -> Yaml {
        let admin = self.admin.as_ref().map_or_else(
            || Yaml::text("none"),
            |admin| {
                let address = match &admin.address {
                    AdminAddress::Tcp(address) => address.to_string(),
                    AdminAddress::Unix(path) => format!("unix:{}", absolute(path)),
                };
                let token = admin.token.as_ref().map(|token| Yaml::raw(token.written()));
                Yaml::map([("address", Yaml::text(address))]).with("token", token)
            },
        );
        Yaml::map([
            ("http", Yaml::texts(&self.http)),
            ("https", Yaml::texts(&self.https)),
            ("admin", admin),
        ])
    }
}

impl Site {
    fn yaml(&self) -> Yaml {
        let aliases = self.aliases.iter().map(|alias| alias.as_str());
        let routes = self.routes.iter().map(Route::yaml).collect();
        Yaml::map([("aliases", Yaml::texts(aliases))])
            .with("next", self.next.as_ref().map(|next| self.next_yaml(next)))
            .with("routes", Some(Yaml::List(routes)))
            .with("compress", Some(Yaml::texts(self.compress.iter().map(|coding| coding.name()))))
            .with("client_ca", self.client_ca.as_deref().map(|file| Yaml::text(absolute(file))))
            .with("allow", edge_show::texts(&self.addresses.allow))
            .with("deny", edge_show::texts(&self.addresses.deny))
            .with("dev", Some(Yaml::word(self.dev)))
            .with("hsts", self.hsts.as_ref().map(Hsts::yaml))
            .with("headers", self.headers.yaml())
            .with("cors", self.cors.as_ref().map(Cors::yaml))
            .with("maintenance", self.maintenance.as_ref().map(Maintenance::yaml))
            .with("errors", edge_show::errors(&self.errors))
            .with("actions", edge_show::actions(&self.action_origins))
    }

    fn next_yaml(&self, next: &Upstream) -> Yaml {
        let images = self.images.as_ref().map_or_else(|| Yaml::text("none"), Images::yaml);
        next.yaml().with("build", self.build.as_ref().map(Build::yaml)).with("images", Some(images))
    }
}

impl AccessFormat {
    fn word(&self) -> &str {
        match self {
            Self::Json => "json",
            Self::Combined => "combined",
            Self::Template { written, .. } => written,
        }
    }
}

impl PerIp {
    fn yaml(&self) -> Yaml {
        let none = || Yaml::text("none");
        let requests = self.requests.as_ref();
        Yaml::map([
            ("connections", self.connections.map_or_else(none, Yaml::word)),
            ("requests", requests.map_or_else(none, |quota| Yaml::text(quota.rate))),
        ])
        .with("burst", requests.map(|quota| Yaml::word(quota.burst)))
    }
}

impl Together {
    fn yaml(&self) -> Yaml {
        let Some(events) = &self.events else { return Yaml::word(self.connections) };
        Yaml::map([
            ("connections", Yaml::word(self.connections)),
            ("events", Yaml::text(events.rate)),
            ("burst", Yaml::word(events.burst)),
        ])
    }
}

impl RouteRate {
    fn yaml(&self) -> Yaml {
        let by = match &self.by {
            RateBy::Address => "ip".to_owned(),
            RateBy::Header(name) => format!("header:{name}"),
            RateBy::Cookie(name) => format!("cookie:{name}"),
        };
        Yaml::map([
            ("to", Yaml::text(self.quota.rate)),
            ("burst", Yaml::word(self.quota.burst)),
            ("by", Yaml::text(by)),
        ])
    }
}

impl Route {
    fn yaml(&self) -> Yaml {
        let path = Yaml::map([("path", Yaml::text(&self.path))]);
        let route = self
            .when
            .with_yaml(path)
            .with("share", self.share.as_ref().map(Share::yaml))
            .with("allow", edge_show::texts(&self.addresses.allow))
            .with("deny", edge_show::texts(&self.addresses.deny))
            .with("headers", self.headers.yaml())
            .with("cors", self.cors.as_ref().map(Cors::yaml));
        let route = match &self.action {
            Action::Next => route,
            Action::To(upstream) => route.with("to", Some(upstream.yaml())),
            Action::Files(files) => {
                return self.behind_door(route.with("files", Some(files.yaml())));
            }
            Action::Redirect { location, status } => {
                return route
                    .with("redirect", Some(Yaml::text(location)))
                    .with("status", Some(Yaml::word(status)))
                    .with("rate", self.rate.as_ref().map(RouteRate::yaml));
            }
        }
        .with("strip", self.rewrite.strip.as_ref().map(Yaml::text))
        .with("prefix", self.rewrite.prefix.as_ref().map(Yaml::text))
        .with("request_headers", self.request_headers.yaml())
        .with("body", self.body.map(|body| Yaml::text(show_size(body))))
        .with("body_rate", self.body_rate.map(Yaml::text))
        .with("response_body", self.response_body.map(response_body))
        .with("timeouts", edge_show::timeouts(self))
        .with("rate", self.rate.as_ref().map(RouteRate::yaml))
        .with("upgrade", Some(Yaml::word(self.upgrade)));
        self.behind_door(route)
    }

    fn behind_door(&self, route: Yaml) -> Yaml {
        match &self.auth {
            Some(auth) => auth.yaml(route),
            None => route,
        }
    }
}

impl Hub {
    fn yaml(&self) -> Yaml {
        let time = |duration| Yaml::text(show_duration(duration));
        let limits = Yaml::map([
            ("message", Yaml::text(bytes(self.limits.message))),
            ("rooms", Yaml::word(self.limits.rooms)),
            ("queue", Yaml::text(bytes(self.limits.queue))),
            ("events", Yaml::text(self.limits.events)),
            ("burst", Yaml::word(self.limits.burst)),
            ("bytes", Yaml::text(self.limits.bytes)),
            ("per_ip", self.limits.per_ip.yaml()),
            ("pending", Yaml::word(self.limits.pending)),
            ("handshakes", Yaml::text(self.limits.handshakes)),
            ("per_user", self.limits.per_user.yaml()),
            ("attachments", Yaml::word(self.limits.attachments)),
            ("memory", self.limits.memory.yaml()),
        ]);
        let recovery = self.recovery.as_ref().map(Recovery::yaml);
        let compress = self.compress_above;
        let compress = compress.map(|above| Yaml::map([("above", Yaml::text(bytes(above)))]));
        let namespaces =
            self.namespaces.iter().map(|namespace| (namespace.name.clone(), namespace.yaml()));
        Yaml::map([
            ("path", Yaml::text(&self.path)),
            ("origins", Yaml::texts(&self.origins)),
            (
                "ping",
                Yaml::map([
                    ("interval", time(self.ping_interval)),
                    ("timeout", time(self.ping_timeout)),
                ]),
            ),
            ("connect_timeout", time(self.connect_timeout)),
            ("limits", limits),
            ("drain", Yaml::map([("over", time(self.drain_over))])),
            ("hooks", self.hooks.yaml()),
            ("namespaces", Yaml::named(namespaces)),
        ])
        .with("compress", compress)
        .with("recovery", recovery)
        .with("admin_ui", self.admin_ui.as_ref().map(AdminUi::yaml))
        .with("redis", self.redis.as_ref().map(Redis::yaml))
    }
}

impl Redis {
    fn yaml(&self) -> Yaml {
        let time = |duration| Yaml::text(show_duration(duration));
        let urls = self.urls.iter().map(|url| match url.password {
            Some(_) => Yaml::raw(url.written.written()),
            None => Yaml::text(url.written.expose()),
        });
        let adapter = match self.wire.adapter {
            Adapter::Classic => "classic",
            Adapter::Sharded => "sharded",
            Adapter::Streams => "streams",
        };
        let rooms = match self.wire.rooms {
            RoomChannels::Dynamic => "dynamic",
            RoomChannels::DynamicPrivate => "dynamic-private",
            RoomChannels::Static => "static",
        };
        let protocol = match self.protocol {
            Protocol::Auto => "auto",
            Protocol::Resp2 => "2",
            Protocol::Resp3 => "3",
        };
        let stream = Yaml::map([
            ("length", Yaml::word(self.wire.length)),
            ("count", Yaml::word(self.wire.count)),
        ]);
        let sentinel = match &self.servers {
            RedisServers::Sentinel(name) => Some(Yaml::text(name)),
            _ => None,
        };
        let password = self.password.as_ref().map(|secret| Yaml::raw(secret.written()));
        Yaml::map([
            ("url", Yaml::List(urls.collect())),
            ("adapter", Yaml::text(adapter)),
            ("key", Yaml::text(&self.wire.key)),
            ("rooms", Yaml::text(rooms)),
            ("stream", stream),
            ("cluster", Yaml::word(self.servers == RedisServers::Cluster)),
            ("protocol", Yaml::text(protocol)),
            ("timeout", time(self.timeout)),
            ("buffer", Yaml::text(bytes(self.buffer))),
            ("answer", time(self.answer)),
            ("resume", time(self.resume)),
        ])
        .with("node", Some(self.node(time(self.lease))))
        .with("sentinel", sentinel)
        .with("username", self.username.as_ref().map(Yaml::text))
        .with("password", password)
        .with("ca", self.ca.as_ref().map(|path| Yaml::text(absolute(path))))
    }

    fn node(&self, lease: Yaml) -> Yaml {
        let shown = Yaml::map([("lease", lease)]);
        let Some(node) = &self.node else { return shown };
        let address = node
            .address
            .as_ref()
            .map(|address| Yaml::text(address.to_string().trim_start_matches("http://")));
        shown
            .with("listen", Some(Yaml::text(node.listen)))
            .with("address", address)
            .with("secret", Some(Yaml::raw(node.secret.written())))
    }
}

impl Recovery {
    fn yaml(&self) -> Yaml {
        Yaml::map([
            ("for", Yaml::text(show_duration(self.lasts))),
            ("messages", Yaml::word(self.messages)),
            ("bytes", Yaml::text(bytes(self.bytes))),
            ("sessions", Yaml::word(self.sessions)),
        ])
    }
}

impl AdminUi {
    fn yaml(&self) -> Yaml {
        Yaml::map([
            ("namespace", Yaml::text(&self.namespace)),
            ("mode", Yaml::text("production")),
            ("username", Yaml::text(&self.door.username)),
            ("password", Yaml::raw(self.door.password.written())),
            ("readonly", Yaml::word(self.door.readonly)),
        ])
        .with("secret", self.door.secret.as_ref().map(|secret| Yaml::raw(secret.written())))
    }
}

impl Hooks {
    fn yaml(&self) -> Yaml {
        let secret = self.secret.as_ref().map(|secret| Yaml::raw(secret.written()));
        Yaml::map([
            ("timeout", Yaml::text(show_duration(self.timeout))),
            ("retry", Yaml::text(show_duration(self.retry))),
            ("headers", Yaml::texts(&self.headers)),
        ])
        .with("secret", secret)
        .with("to", self.to.as_ref().map(Upstream::yaml))
    }
}

impl Namespace {
    fn yaml(&self) -> Yaml {
        let auth = match &self.auth {
            NamespaceAuth::Anyone => Yaml::text("none"),
            NamespaceAuth::Users(providers) => Yaml::texts(providers),
        };
        let rules = self.events.iter().map(|(name, rule)| (name.clone(), rule.yaml()));
        let otherwise = self.otherwise.iter().map(|rule| ("*".to_owned(), rule.yaml()));
        Yaml::map([
            ("auth", auth),
            ("join", Yaml::texts(&self.join)),
            ("presence", Yaml::texts(&self.presence)),
            ("events", Yaml::named(rules.chain(otherwise))),
        ])
        .with("connect", self.connect.as_ref().map(Yaml::text))
        .with("disconnect", self.disconnect.as_ref().map(Yaml::text))
    }
}

impl EventRule {
    fn yaml(&self) -> Yaml {
        self.rule
            .yaml()
            .with("rate", self.rate.map(Yaml::text))
            .with("max", self.max.map(|max| Yaml::text(bytes(max))))
    }
}

impl MemoryMax {
    fn yaml(self) -> Yaml {
        match self {
            Self::Auto => Yaml::text("auto"),
            Self::Bytes(bytes) => Yaml::text(show_size(bytes)),
            Self::Off => Yaml::text("none"),
        }
    }
}

impl EventKind {
    fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Disconnect => "disconnect",
            Self::Event => "event",
            Self::Deny => "deny",
        }
    }
}

impl Rule {
    fn yaml(&self) -> Yaml {
        match self {
            Self::Relay(relay) => relay.yaml(),
            Self::Join(rooms) => Yaml::map([("join", Yaml::texts(rooms))]),
            Self::Leave(rooms) => Yaml::map([("leave", Yaml::texts(rooms))]),
            Self::Presence(room) => Yaml::map([("presence", Yaml::text(room))]),
            Self::Forward(path) => Yaml::map([("forward", Yaml::text(path))]),
            Self::Deny => Yaml::text("deny"),
        }
    }
}

impl Relay {
    fn yaml(&self) -> Yaml {
        let to = match &self.to {
            Audience::Everyone => Yaml::text("*"),
            Audience::Rooms(rooms) => Yaml::texts(rooms),
        };
        let stamp = self.stamp.iter().map(|(field, value)| (field.clone(), Yaml::text(value)));
        Yaml::map([
            ("relay", to),
            ("stamp", Yaml::named(stamp)),
            ("volatile", Yaml::word(self.volatile)),
            ("echo", Yaml::word(self.echo)),
            ("member", Yaml::word(self.member)),
        ])
    }
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl LogFormat {
    fn word(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Json => "json",
        }
    }
}

//! The small words of a configuration and how each is written.

#[derive(Debug, Clone)]
pub struct Cidr;
impl Cidr {
    pub fn contains(&self, _address: std::net::IpAddr) -> bool {
        false
    }
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern(pub String);
impl HostPattern {
    pub fn matches(&self, host: &str) -> bool {
        self.0 == host
    }
}
#[derive(Debug, Clone)]
pub struct PathPattern(pub String);
#[derive(Clone)]
pub struct Secret(pub String);
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub parts: Vec<TemplatePart>,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    Literal(String),
    User(String),
    Argument { index: usize, path: Vec<String> },
    Event,
    Sid,
}

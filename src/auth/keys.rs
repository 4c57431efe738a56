//! Keys that tokens are signed with: from a secret, a PEM file or a JWKS document (RFC 7517).

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::{hmac, signature};
use serde_json::Value;

use super::seal::{base64, base64_url};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Es256,
    Es384,
    EdDsa,
}

const NAMES: [(&str, Algorithm); 10] = [
    ("HS256", Algorithm::Hs256),
    ("HS384", Algorithm::Hs384),
    ("HS512", Algorithm::Hs512),
    ("RS256", Algorithm::Rs256),
    ("RS384", Algorithm::Rs384),
    ("RS512", Algorithm::Rs512),
    ("PS256", Algorithm::Ps256),
    ("ES256", Algorithm::Es256),
    ("ES384", Algorithm::Es384),
    ("EdDSA", Algorithm::EdDsa),
];

impl Algorithm {
    /// Exactly as RFC 7518 writes it; `none` is no algorithm.
    pub fn parse(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }
}

/// One key, for one algorithm.
pub struct Key {
    pub kid: Option<String>,
    pub algorithm: Algorithm,
    material: Material,
}

enum Material {
    Secret(Vec<u8>),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point, 32 bytes of Ed25519, or the DER of either or of an RSA key.
    Bytes(Vec<u8>),
}

/// Keys of one document.
const KEYS_MAX: usize = 100;
/// Bits below which an RSA key is weak.
const RSA_MIN: usize = 2048;

impl Key {
    /// A shared secret.
    pub fn secret(secret: &str, algorithm: Algorithm) -> Self {
        Self { kid: None, algorithm, material: Material::Secret(secret.as_bytes().to_vec()) }
    }

    /// A public key as `-----BEGIN PUBLIC KEY-----` has it.
    pub fn pem(pem: &str, algorithm: Algorithm) -> Result<Self, &'static str> {
        const WRONG: &str = "is no public key in PEM; it begins with -----BEGIN PUBLIC KEY-----";
        let body = pem.trim().strip_prefix("-----BEGIN PUBLIC KEY-----");
        let body = body.and_then(|body| body.strip_suffix("-----END PUBLIC KEY-----"));
        let body: String = body.ok_or(WRONG)?.split_whitespace().collect();
        let der = base64(&body).ok_or(WRONG)?;
        let key = Self { kid: None, algorithm, material: Material::Bytes(der) };
        if key.public().is_some_and(|known| known.parses(&key)) { Ok(key) } else { Err(WRONG) }
    }

    /// The keys of a JWKS document that sign; others are passed over.
    pub fn set(document: &[u8]) -> Result<Vec<Self>, &'static str> {
        let document: Value = serde_json::from_slice(document).map_err(|_error| "is no JSON")?;
        let keys = document.get("keys").and_then(Value::as_array).ok_or("has no list of keys")?;
        if keys.len() > KEYS_MAX {
            return Err("has more than 100 keys");
        }
        Ok(keys.iter().filter_map(Self::jwk).collect())
    }

    pub fn jwk(jwk: &Value) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| text(name).and_then(base64_url);
        if text("use").is_some_and(|kind| kind != "sig") {
            return None;
        }
        let said = text("alg").map(Algorithm::parse);
        let (algorithm, material) = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let (n, e) = (bytes("n")?, bytes("e")?);
                let length = n.iter().skip_while(|byte| **byte == 0).count() * 8;
                let algorithm = said.unwrap_or(Some(Algorithm::Rs256))?;
                (algorithm, (length >= RSA_MIN).then_some(Material::Rsa { n, e })?)
            }
            ("EC", Some("P-256")) => (Algorithm::Es256, point(&bytes("x")?, &bytes("y")?, 32)?),
            ("EC", Some("P-384")) => (Algorithm::Es384, point(&bytes("x")?, &bytes("y")?, 48)?),
            ("OKP", Some("Ed25519")) => (Algorithm::EdDsa, Material::Bytes(bytes("x")?)),
            // A secret in a public document is none.
            _ => return None,
        };
        let fits = said.is_none_or(|said| said == Some(algorithm));
        let key = Self { kid: text("kid").map(str::to_owned), algorithm, material };
        (fits && key.is_consistent()).then_some(key)
    }

    /// An RSA key is for RSA's algorithms.
    fn is_consistent(&self) -> bool {
        let rsa = matches!(
            self.algorithm,
            Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512 | Algorithm::Ps256
        );
        rsa == matches!(self.material, Material::Rsa { .. })
    }

    pub fn verifies(&self, message: &[u8], tag: &[u8]) -> bool {
        if let Material::Secret(secret) = &self.material {
            let hash = match self.algorithm {
                Algorithm::Hs256 => hmac::HMAC_SHA256,
                Algorithm::Hs384 => hmac::HMAC_SHA384,
                Algorithm::Hs512 => hmac::HMAC_SHA512,
                _ => return false,
            };
            return hmac::verify(&hmac::Key::new(hash, secret), message, tag).is_ok();
        }
        self.public().is_some_and(|public| public.verifies(self, message, tag))
    }

    fn public(&self) -> Option<Public> {
        Some(match self.algorithm {
            Algorithm::Rs256 => Public::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::Rs384 => Public::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::Rs512 => Public::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::Ps256 => Public::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            // r and s side by side, never DER.
            Algorithm::Es256 => Public::Other(&signature::ECDSA_P256_SHA256_FIXED),
            Algorithm::Es384 => Public::Other(&signature::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDsa => Public::Other(&signature::ED25519),
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => return None,
        })
    }
}

enum Public {
    Rsa(&'static signature::RsaParameters),
    Other(&'static dyn signature::VerificationAlgorithm),
}

impl Public {
    fn verifies(&self, key: &Key, message: &[u8], tag: &[u8]) -> bool {
        match (self, &key.material) {
            (Self::Rsa(parameters), Material::Rsa { n, e }) => {
                PublicKeyComponents { n, e }.verify(parameters, message, tag).is_ok()
            }
            (Self::Rsa(parameters), Material::Bytes(bytes)) => {
                let key = signature::UnparsedPublicKey::new(*parameters, bytes);
                key.verify(message, tag).is_ok()
            }
            (Self::Other(algorithm), Material::Bytes(bytes)) => {
                let key = signature::UnparsedPublicKey::new(*algorithm, bytes);
                key.verify(message, tag).is_ok()
            }
            _ => false,
        }
    }

    fn parses(&self, key: &Key) -> bool {
        let Material::Bytes(bytes) = &key.material else { return false };
        match self {
            Self::Rsa(parameters) => signature::ParsedPublicKey::new(*parameters, bytes).is_ok(),
            Self::Other(algorithm) => signature::ParsedPublicKey::new(*algorithm, bytes).is_ok(),
        }
    }
}

fn point(x: &[u8], y: &[u8], length: usize) -> Option<Material> {
    (x.len() == length && y.len() == length).then(|| Material::Bytes([&[4], x, y].concat()))
}

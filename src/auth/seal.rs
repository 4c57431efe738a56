//! Signatures, sealed cookies and the keys to them.
//!
//! One error for whatever does not open: what was wrong is nobody's business.

use std::fmt::Write as _;
use std::num::NonZeroU32;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{constant_time, digest, hkdf, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::claims::Claims;

/// It does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed;

/// How a JWE is encrypted; one for each kind of session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// Auth.js 5.
    A256CbcHs512,
    /// NextAuth 4.
    A256Gcm,
}

impl Encryption {
    fn name(self) -> &'static str {
        match self {
            Self::A256CbcHs512 => "A256CBC-HS512",
            Self::A256Gcm => "A256GCM",
        }
    }

    pub fn key_len(self) -> usize {
        match self {
            Self::A256CbcHs512 => 64,
            Self::A256Gcm => 32,
        }
    }
}

/// A key of a JWE and what it is called.
pub struct JweKey {
    pub bytes: Vec<u8>,
    /// RFC 7638; `None` where tokens name none.
    pub kid: Option<String>,
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Of several parts, each with its length before it.
pub fn sha256_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

/// Takes a time that tells the length at most.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(one, other).is_ok()
}

/// `None` unless it is exactly what an encoder writes.
pub fn base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

pub fn base64_unpadded(text: &str) -> Option<Vec<u8>> {
    STANDARD_NO_PAD.decode(text).ok()
}

#[cfg(test)]
pub fn to_base64_url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn base64_url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Whether `tag` is the HMAC-SHA256 of `message`.
pub fn is_signed(secret: &[u8], message: &[u8], tag: &[u8]) -> bool {
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), message, tag).is_ok()
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-SHA256.
pub fn derive(secret: &[u8], salt: &[u8], info: &[u8], length: usize) -> Vec<u8> {
    let mut key = vec![0; length];
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
    let info = [info];
    let filled = prk.expand(&info, Length(length)).and_then(|okm| okm.fill(&mut key));
    filled.expect("HKDF gives keys of these lengths");
    key
}

/// The thumbprint of a symmetric key (RFC 7638), by a hash as long as the key.
pub fn thumbprint(key: &[u8]) -> String {
    let words = format!(r#"{{"k":"{}","kty":"oct"}}"#, URL_SAFE_NO_PAD.encode(key));
    let hash = if key.len() == 64 { &digest::SHA512 } else { &digest::SHA256 };
    URL_SAFE_NO_PAD.encode(digest::digest(hash, words.as_bytes()))
}

/// Bytes of what is inside.
const PAYLOAD_MAX: usize = 64 << 10;

/// Opens a JWE whose key is shared (`dir`, RFC 7516). The first key is for tokens that name none.
pub fn open_jwe(token: &str, encryption: Encryption, keys: &[JweKey]) -> Result<Vec<u8>, Sealed> {
    let mut parts = token.split('.');
    let mut next = || parts.next().ok_or(Sealed);
    let (head, key, iv, text, tag) = (next()?, next()?, next()?, next()?, next()?);
    if parts.next().is_some() || !key.is_empty() || text.len() > PAYLOAD_MAX * 4 / 3 {
        return Err(Sealed);
    }
    let kid = read_head(head, encryption)?;
    let key = match &kid {
        None => keys.first(),
        Some(kid) => keys.iter().find(|key| key.kid.as_ref().is_none_or(|known| known == kid)),
    };
    let key = key.ok_or(Sealed)?;
    let decode = |text| base64_url(text).ok_or(Sealed);
    let (iv, text, tag) = (decode(iv)?, decode(text)?, decode(tag)?);
    match encryption {
        Encryption::A256CbcHs512 => open_cbc(&key.bytes, head.as_bytes(), &iv, text, &tag),
        Encryption::A256Gcm => open_gcm(&key.bytes, head.as_bytes(), &iv, text, &tag),
    }
}

/// The key's name. Whatever would change how it is opened is refused before anything is.
fn read_head(head: &str, encryption: Encryption) -> Result<Option<String>, Sealed> {
    let head = base64_url(head).and_then(|head| Claims::parse(&head).ok()).ok_or(Sealed)?;
    let known = ["alg", "enc", "kid", "typ", "cty"];
    let plain = head.names().all(|name| known.contains(&name));
    if !plain || head.text("alg") != Some("dir") || head.text("enc") != Some(encryption.name()) {
        return Err(Sealed);
    }
    match head.get("kid") {
        None => Ok(None),
        Some(kid) => kid.as_str().map(|kid| Some(kid.to_owned())).ok_or(Sealed),
    }
}

/// RFC 7518 §5.2.5: the tag first, then the padding.
fn open_cbc(
    key: &[u8],
    head: &[u8],
    iv: &[u8],
    text: Vec<u8>,
    tag: &[u8],
) -> Result<Vec<u8>, Sealed> {
    let (mac_key, aes_key) = key.split_at_checked(32).ok_or(Sealed)?;
    let bits = (head.len() as u64) * 8;
    let mac_key = hmac::Key::new(hmac::HMAC_SHA512, mac_key);
    let mut context = hmac::Context::with_key(&mac_key);
    [head, iv, &text, &bits.to_be_bytes()].into_iter().for_each(|part| context.update(part));
    let mac = context.sign();
    if !same(mac.as_ref().get(..32).ok_or(Sealed)?, tag) {
        return Err(Sealed);
    }
    decrypt_cbc(aes_key, iv, text)
}

fn decrypt_cbc(key: &[u8], iv: &[u8], mut text: Vec<u8>) -> Result<Vec<u8>, Sealed> {
    let key = UnboundCipherKey::new(&AES_256, key).map_err(|_error| Sealed)?;
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(|_error| Sealed)?;
    let iv: &[u8; 16] = iv.try_into().map_err(|_error| Sealed)?;
    let iv = DecryptionContext::Iv128(FixedLength::from(iv));
    Ok(key.decrypt(&mut text, iv).map_err(|_error| Sealed)?.to_vec())
}

fn open_gcm(
    key: &[u8],
    head: &[u8],
    iv: &[u8],
    mut text: Vec<u8>,
    tag: &[u8],
) -> Result<Vec<u8>, Sealed> {
    if tag.len() != 16 {
        return Err(Sealed);
    }
    let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_error| Sealed)?;
    let nonce = Nonce::try_assume_unique_for_key(iv).map_err(|_error| Sealed)?;
    text.extend_from_slice(tag);
    let opened = LessSafeKey::new(key).open_in_place(nonce, Aad::from(head), &mut text);
    Ok(opened.map_err(|_error| Sealed)?.to_vec())
}

/// What iron-session 9 sealed, and when it ends; `None` is never.
pub fn open_iron(
    seal: &str,
    password: &dyn Fn(&str) -> Option<Vec<u8>>,
) -> Result<(Vec<u8>, Option<i64>), Sealed> {
    // How the library counts its own versions; not signed, so it must not matter.
    let seal = seal.split_once('~').map_or(seal, |(seal, _)| seal);
    let fields: Vec<&str> = seal.split('*').collect();
    let [prefix, id, salt, iv, text, expires, mac_salt, mac] = fields[..] else {
        return Err(Sealed);
    };
    let password = password(id).filter(|_| prefix == "Fe26.2").ok_or(Sealed)?;
    let signed = seal.len() - mac_salt.len() - mac.len() - 2;
    let signed = seal.get(..signed).ok_or(Sealed)?;
    let mac = base64_url(mac).ok_or(Sealed)?;
    if !is_signed(&stretch(&password, mac_salt), signed.as_bytes(), &mac) {
        return Err(Sealed);
    }
    let (iv, text) = (base64_url(iv).ok_or(Sealed)?, base64_url(text).ok_or(Sealed)?);
    let expires = match expires {
        "" => None,
        digits => Some(digits.parse().map_err(|_error| Sealed)?),
    };
    Ok((decrypt_cbc(&stretch(&password, salt), &iv, text)?, expires))
}

/// PBKDF2 with one round, as the library does: its passwords are long.
fn stretch(password: &[u8], salt: &str) -> [u8; 32] {
    let mut key = [0; 32];
    let once = NonZeroU32::MIN;
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA1, once, salt.as_bytes(), password, &mut key);
    key
}

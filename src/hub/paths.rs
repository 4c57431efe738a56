//! Paths as the application means them, whatever clients write; pure.

use crate::exchange::query::decode_path;

/// A path as the application matches it: decoded, without empty segments and the last slash.
pub fn plain(path: &str) -> String {
    let decoded = decode_path(path);
    let segments =
        decoded.split(['/', '\\']).filter(|segment| !segment.is_empty() && *segment != ".");
    let mut plain = Vec::new();
    for segment in segments {
        if segment == ".." {
            plain.pop();
        } else {
            plain.push(segment);
        }
    }
    format!("/{}", plain.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_paths_are_known_however_they_are_written() {
        for path in [
            "/api/chat",
            "/api/chat/",
            "//api//chat",
            "/api/%63hat",
            "/api/x/../chat",
            "/api/./chat",
            "/api%2fchat",
            "/api\\chat",
        ] {
            assert_eq!(plain(path), "/api/chat", "{path}");
        }
        for path in ["/api/a+b", "/api/a%2bb", "/api/%61+b/"] {
            assert_eq!(plain(path), "/api/a+b", "{path}");
        }
        for path in ["/api/chat2", "/api/Chat", "/api", "/api/chat/x"] {
            assert_ne!(plain(path), "/api/chat", "{path}");
        }
    }
}

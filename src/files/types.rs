//! What a file is, by the end of its name; pure.

use std::ffi::OsStr;
use std::path::Path;

/// The media type, as IANA and the WHATWG have it.
pub fn of(path: &Path) -> &'static str {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    let extension = extension.to_ascii_lowercase();
    let found = TYPES.iter().find(|(_, all)| all.contains(&extension.as_str()));
    found.map_or("application/octet-stream", |(kind, _)| *kind)
}

const TYPES: &[(&str, &[&str])] = &[
    ("text/html; charset=utf-8", &["html", "htm"]),
    ("text/css; charset=utf-8", &["css"]),
    ("text/javascript; charset=utf-8", &["js", "mjs", "cjs"]),
    ("application/json; charset=utf-8", &["json", "map"]),
    ("application/manifest+json", &["webmanifest"]),
    ("application/ld+json", &["jsonld"]),
    ("application/geo+json", &["geojson"]),
    ("application/wasm", &["wasm"]),
    ("application/xml; charset=utf-8", &["xml", "xsl"]),
    ("application/rss+xml; charset=utf-8", &["rss"]),
    ("application/atom+xml; charset=utf-8", &["atom"]),
    ("application/xhtml+xml; charset=utf-8", &["xhtml"]),
    ("text/plain; charset=utf-8", &["txt", "text", "log", "conf", "ini"]),
    ("text/markdown; charset=utf-8", &["md", "markdown"]),
    ("text/csv; charset=utf-8", &["csv"]),
    ("text/calendar; charset=utf-8", &["ics"]),
    ("text/vcard; charset=utf-8", &["vcf"]),
    ("text/vtt; charset=utf-8", &["vtt"]),
    ("text/x-component", &["rsc"]),
    ("application/yaml", &["yaml", "yml"]),
    ("image/svg+xml", &["svg"]),
    ("image/png", &["png"]),
    ("image/apng", &["apng"]),
    ("image/jpeg", &["jpg", "jpeg", "jfif"]),
    ("image/gif", &["gif"]),
    ("image/webp", &["webp"]),
    ("image/avif", &["avif"]),
    ("image/jxl", &["jxl"]),
    ("image/heic", &["heic"]),
    ("image/bmp", &["bmp"]),
    ("image/tiff", &["tif", "tiff"]),
    ("image/x-icon", &["ico", "cur"]),
    ("font/woff2", &["woff2"]),
    ("font/woff", &["woff"]),
    ("font/ttf", &["ttf"]),
    ("font/otf", &["otf"]),
    ("font/collection", &["ttc"]),
    ("application/vnd.ms-fontobject", &["eot"]),
    ("video/mp4", &["mp4", "m4v"]),
    ("video/webm", &["webm"]),
    ("video/ogg", &["ogv"]),
    ("video/quicktime", &["mov"]),
    ("video/x-matroska", &["mkv"]),
    ("video/mp2t", &["ts", "m2ts"]),
    ("application/vnd.apple.mpegurl", &["m3u8"]),
    ("application/dash+xml", &["mpd"]),
    ("audio/mpeg", &["mp3"]),
    ("audio/mp4", &["m4a"]),
    ("audio/ogg", &["ogg", "oga", "opus"]),
    ("audio/wav", &["wav"]),
    ("audio/flac", &["flac"]),
    ("audio/aac", &["aac"]),
    ("audio/webm", &["weba"]),
    ("audio/midi", &["mid", "midi"]),
    ("model/gltf-binary", &["glb"]),
    ("model/gltf+json", &["gltf"]),
    ("application/pdf", &["pdf"]),
    ("application/rtf", &["rtf"]),
    ("application/epub+zip", &["epub"]),
    ("application/zip", &["zip"]),
    ("application/gzip", &["gz", "tgz"]),
    ("application/zstd", &["zst"]),
    ("application/x-tar", &["tar"]),
    ("application/x-bzip2", &["bz2"]),
    ("application/x-7z-compressed", &["7z"]),
    ("application/vnd.rar", &["rar"]),
    ("application/java-archive", &["jar"]),
    ("application/vnd.android.package-archive", &["apk"]),
    ("application/msword", &["doc"]),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", &["docx"]),
    ("application/vnd.ms-excel", &["xls"]),
    ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", &["xlsx"]),
    ("application/vnd.ms-powerpoint", &["ppt"]),
    ("application/vnd.openxmlformats-officedocument.presentationml.presentation", &["pptx"]),
    ("application/vnd.oasis.opendocument.text", &["odt"]),
    ("application/vnd.oasis.opendocument.spreadsheet", &["ods"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_bytes() {
        for (path, kind) in [
            ("a/b.CSS", "text/css; charset=utf-8"),
            ("app.min.js", "text/javascript; charset=utf-8"),
            ("x.woff2", "font/woff2"),
            ("x.unknown", "application/octet-stream"),
            ("js", "application/octet-stream"),
        ] {
            assert_eq!(of(Path::new(path)), kind, "{path}");
        }
    }

    #[test]
    fn every_end_is_there_once() {
        let mut all: Vec<_> = TYPES.iter().flat_map(|(_, all)| *all).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}

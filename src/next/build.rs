//! What `next build` has written down, as far as an edge needs it; pure.
//!
//! The formats are Next.js' own and change: what is not understood is as if it were not there.

use std::collections::HashSet;

use serde_json::Value;

use super::image::Sources;

/// The texts of files below `.next`, where they are there.
#[derive(Debug, Default)]
pub struct Manifests {
    /// `routes-manifest.json`
    pub routes: Option<String>,
    /// `images-manifest.json`
    pub images: Option<String>,
    /// `server/server-reference-manifest.json`
    pub actions: Option<String>,
    /// `required-server-files.json`
    pub required: Option<String>,
    /// `server/middleware-manifest.json`
    pub middleware: Option<String>,
    /// `server/functions-config-manifest.json`
    pub functions: Option<String>,
}

/// What is known of one build.
#[derive(Debug, Default)]
pub struct Build {
    /// Before every path, without a slash at its end.
    pub base: String,
    /// The ids of Server Actions; `None` if they are not known.
    pub actions: Option<HashSet<String>>,
    /// `serverActions.allowedOrigins`
    pub origins: Vec<String>,
    pub images: Option<Images>,
    /// Something of the application's looks at every request.
    pub middleware: bool,
    /// Where the middleware is told of a body, it and the application behind it get so many bytes
    /// of it, and the rest is left out without a word.
    pub cut: Option<Cut>,
    /// Nothing of the application's stands before the files of `public/`: no middleware, no
    /// redirects, no headers.
    pub plain_public: bool,
}

/// How bodies are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    pub after: u64,
    /// Whatever is asked for; else it depends on what the middleware is for.
    pub always: bool,
}

/// What `/_next/image` may be asked for.
#[derive(Debug, Default)]
pub struct Images {
    pub widths: Vec<u64>,
    /// `None`: any.
    pub qualities: Option<Vec<u64>>,
    /// Images of other servers, at all.
    pub remote: bool,
    /// `None` if it is not known.
    pub sources: Option<Sources>,
}

impl Build {
    pub fn parse(files: &Manifests) -> Self {
        let json = |text: &Option<String>| -> Option<Value> {
            serde_json::from_str(text.as_deref()?).ok()
        };
        let routes = json(&files.routes).unwrap_or_default();
        let required = json(&files.required).unwrap_or_default();
        let base = routes.get("basePath").and_then(Value::as_str).unwrap_or_default();
        let base = base.trim_end_matches('/');
        let origins = required.pointer("/config/experimental/serverActions/allowedOrigins");
        let (edge, node) = (json(&files.middleware), json(&files.functions));
        let cut = cut(&required, edge.as_ref(), node.as_ref());
        let middleware = has_middleware(edge, node);
        Self {
            cut: cut.filter(|_| middleware == Some(true)),
            middleware: middleware == Some(true),
            base: base.to_owned(),
            actions: json(&files.actions).map(|all| ids(&all)),
            origins: origins.map(texts).unwrap_or_default(),
            images: json(&files.images).and_then(|all| images(&all, base, &required)),
            plain_public: is_plain(&routes) && middleware == Some(false),
        }
    }
}

/// The oldest versions whose holes are mended, by their first number; nothing older is.
const FLOORS: [[u64; 3]; 2] = [[15, 5, 27], [16, 3, 8]];

/// The version in the text of a `package.json`.
pub fn version(package: &str) -> Option<String> {
    let package: Value = serde_json::from_str(package).ok()?;
    package.get("version")?.as_str().map(str::to_owned)
}

/// Whether a version of Next.js has holes that are known to everybody; no version has none.
pub fn is_holed(version: &str) -> bool {
    let numbers: Option<Vec<u64>> = version
        .split(['-', '+'])
        .next()
        .map(|text| text.split('.').flat_map(str::parse::<u64>).collect());
    let Some([major, minor, patch]) = numbers.as_deref() else { return false };
    let floor = FLOORS.iter().find(|floor| floor.first() == Some(major));
    match floor {
        Some(floor) => [*major, *minor, *patch] < *floor,
        None => *major < 15,
    }
}

fn texts(list: &Value) -> Vec<String> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).map(str::to_ascii_lowercase).collect()
}

fn numbers(list: &Value) -> Vec<u64> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_u64).collect()
}

fn ids(manifest: &Value) -> HashSet<String> {
    let runtimes = ["node", "edge"].iter().filter_map(|name| manifest.get(*name)?.as_object());
    runtimes.flat_map(|ids| ids.keys().cloned()).collect()
}

/// `None` where images are made by somebody else.
fn images(manifest: &Value, base: &str, required: &Value) -> Option<Images> {
    let images = manifest.get("images")?;
    let text = |name: &str| images.get(name).and_then(Value::as_str);
    // With `trailingSlash` it ends in one.
    let path = text("path")?.trim_end_matches('/');
    let is_own = [base, ""].iter().any(|base| path.strip_prefix(base) == Some("/_next/image"));
    if text("loader") != Some("default") || !is_own {
        return None;
    }
    let all = |name: &str| images.get(name).map(numbers).unwrap_or_default();
    let widths = [all("deviceSizes"), all("imageSizes")].concat();
    let is_some =
        |name: &str| images.get(name).and_then(Value::as_array).is_some_and(|l| !l.is_empty());
    Some(Images {
        qualities: images.get("qualities").map(numbers).filter(|all| !all.is_empty()),
        remote: is_some("remotePatterns") || is_some("domains"),
        sources: required.pointer("/config/images").and_then(Sources::parse),
        widths,
    })
}

/// No rule of the application's own, but for Next.js' about slashes.
fn is_plain(routes: &Value) -> bool {
    let list = |name: &str| routes.get(name).and_then(Value::as_array);
    let internal = |rule: &Value| rule.get("internal").and_then(Value::as_bool) == Some(true);
    list("redirects").is_some_and(|all| all.iter().all(internal))
        && list("headers").is_some_and(Vec::is_empty)
        && list("onMatchHeaders").is_none_or(Vec::is_empty)
        && routes
            .pointer("/rewrites/beforeFiles")
            .and_then(Value::as_array)
            .is_some_and(Vec::is_empty)
}

/// Older versions cut nothing, and say nothing of it.
fn cut(required: &Value, edge: Option<&Value>, node: Option<&Value>) -> Option<Cut> {
    let experimental = required.pointer("/config/experimental")?;
    let names = ["proxyClientMaxBodySize", "middlewareClientMaxBodySize"];
    let after = names.iter().find_map(|name| experimental.get(*name)?.as_u64())?;
    // A matcher that nobody has written is for every path.
    let is_all = |matcher: &Value| {
        let source = matcher.get("originalSource").and_then(Value::as_str);
        let narrowed = ["has", "missing"].iter().any(|key| matcher.get(*key).is_some());
        source == Some("/:path*") && !narrowed
    };
    let is_for_all = |function: &Value| {
        let matchers = function.get("matchers").and_then(Value::as_array);
        matchers.is_some_and(|matchers| matchers.iter().any(is_all))
    };
    let edge = edge.and_then(|all| all.get("middleware")?.as_object());
    let node = node.and_then(|all| all.pointer("/functions/~1_middleware"));
    let always =
        edge.is_some_and(|all| all.values().any(is_for_all)) || node.is_some_and(is_for_all);
    Some(Cut { after, always })
}

/// `None` if it cannot be told.
fn has_middleware(middleware: Option<Value>, functions: Option<Value>) -> Option<bool> {
    let middleware = middleware?;
    let is_none = middleware.get("middleware")?.as_object()?.is_empty();
    let functions = functions.unwrap_or_default();
    let functions = functions.get("functions").and_then(Value::as_object);
    let is_function =
        functions.is_some_and(|all| all.keys().any(|name| name.contains("middleware")));
    Some(!is_none || is_function)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &Value) -> Option<String> {
        Some(json.to_string())
    }

    fn manifests() -> Manifests {
        let none: [u8; 0] = [];
        Manifests {
            routes: text(&serde_json::json!({
                "basePath": "/shop", "redirects": [{ "internal": true }], "headers": none,
                "rewrites": { "beforeFiles": none },
            })),
            images: text(&serde_json::json!({ "images": {
                "loader": "default", "path": "/_next/image", "deviceSizes": [640, 750],
                "imageSizes": [32], "qualities": [75], "remotePatterns": none, "domains": none,
            } })),
            actions: text(&serde_json::json!({ "node": { "00aa": {} }, "edge": { "11bb": {} } })),
            required: text(&serde_json::json!({ "config": { "experimental": {
                "serverActions": { "allowedOrigins": ["Other.example"] } } } })),
            middleware: text(&serde_json::json!({ "middleware": {} })),
            functions: text(&serde_json::json!({ "functions": {} })),
        }
    }

    #[test]
    fn a_build_says_what_it_has() {
        let build = Build::parse(&manifests());
        assert_eq!((build.base.as_str(), build.plain_public), ("/shop", true));
        let ids = build.actions.expect("ids");
        assert!(ids.contains("00aa") && ids.contains("11bb") && ids.len() == 2);
        assert_eq!(build.origins, ["other.example"]);
        let images = build.images.expect("images");
        assert_eq!((images.widths, images.qualities), (vec![640, 750, 32], Some(vec![75])));
        assert!(!images.remote);
    }

    #[test]
    fn bodies_are_cut_behind_middleware() {
        let cut = |size: Value, edge: Value, node: Value| {
            let experimental = serde_json::json!({ "proxyClientMaxBodySize": size });
            let mut files = manifests();
            files.required =
                text(&serde_json::json!({ "config": { "experimental": experimental } }));
            files.middleware = text(&serde_json::json!({ "middleware": edge }));
            files.functions = text(&serde_json::json!({ "functions": node }));
            Build::parse(&files).cut.map(|cut| (cut.after, cut.always))
        };
        let (size, none) = (serde_json::json!(10), serde_json::json!({}));
        let matched =
            |name: &str, matcher: Value| serde_json::json!({ name: { "matchers": [matcher] } });
        let all = serde_json::json!({ "originalSource": "/:path*", "regexp": "^/.*$" });
        let some = serde_json::json!({ "originalSource": "/admin/:path*" });
        let narrowed = serde_json::json!({ "originalSource": "/:path*", "has": [{}] });
        assert_eq!(cut(size.clone(), none.clone(), none.clone()), None);
        assert_eq!(cut(size.clone(), matched("/", all.clone()), none.clone()), Some((10, true)));
        let node = |matcher: &Value| matched("/_middleware", matcher.clone());
        assert_eq!(cut(size.clone(), none.clone(), node(&all)), Some((10, true)));
        for matcher in [&some, &narrowed] {
            assert_eq!(cut(size.clone(), none.clone(), node(matcher)), Some((10, false)));
        }
        assert_eq!(cut(serde_json::json!("10mb"), none, node(&all)), None);
    }

    #[test]
    fn pictures_are_where_the_build_has_them() {
        for (base, path, expected) in [
            ("", "/_next/image", true),
            ("", "/_next/image/", true),
            ("/shop", "/shop/_next/image", true),
            ("/shop", "/shop/_next/image/", true),
            ("/shop", "/other/_next/image", false),
            ("", "https://cdn.example/_next/image", false),
            ("", "/pictures", false),
        ] {
            let images = serde_json::json!({ "images": { "loader": "default", "path": path } });
            let files = Manifests {
                routes: text(&serde_json::json!({ "basePath": base })),
                images: text(&images),
                ..Manifests::default()
            };
            assert_eq!(Build::parse(&files).images.is_some(), expected, "{base} {path}");
        }
    }

    #[test]
    fn public_is_not_plain_behind_anything() {
        let plain = |change: &dyn Fn(&mut Manifests)| {
            let mut files = manifests();
            change(&mut files);
            Build::parse(&files).plain_public
        };
        assert!(!plain(&|files| files.middleware = None));
        assert!(!plain(&|files| files.routes = None));
        assert!(!plain(
            &|files| files.middleware = text(&serde_json::json!({ "middleware": { "/": {} } }))
        ));
        assert!(!plain(&|files| files.functions =
            text(&serde_json::json!({ "functions": { "/_middleware": {} } }))));
        assert!(!plain(&|files| files.routes = text(&serde_json::json!({
            "redirects": [{ "source": "/a" }], "headers": [], "rewrites": { "beforeFiles": [] },
        }))));
    }

    #[test]
    fn old_versions_have_holes() {
        for version in ["14.2.35", "15.5.26", "16.0.0", "16.3.7", "16.3.7-canary.4"] {
            assert!(is_holed(version), "{version}");
        }
        for version in ["15.5.27", "15.6.0", "16.3.8", "16.4.6", "17.0.0", "", "latest", "16.x.1"] {
            assert!(!is_holed(version), "{version}");
        }
    }

    #[test]
    fn nothing_is_made_of_nonsense() {
        for text in ["", "[]", "1", "{\"node\":[]}", "{\"images\":{}}", "{\"basePath\":1}"] {
            let all = || Some(text.to_owned());
            let build = Build::parse(&Manifests {
                routes: all(),
                images: all(),
                actions: all(),
                required: all(),
                middleware: all(),
                functions: all(),
            });
            assert!(build.images.is_none() && !build.plain_public && build.base.is_empty());
        }
    }
}

//! Who may see a token of the Hugging Face hub, and which redirects are followed.

use std::net::Ipv4Addr;

use url::{Host, Url};

/// Whether a first request to `target` may carry the token of `endpoint`: the same scheme, host
/// and port, and nobody in between who could read it.
pub fn may_have_token(endpoint: &Url, target: &Url) -> bool {
    same_origin(endpoint, target) && is_private(target)
}

/// Whether a redirect from `from` to `to` may be followed (never with the token): from TLS to TLS
/// only, and from a remote host never into this machine.
pub fn may_follow(from: &Url, to: &Url) -> bool {
    match (from.scheme(), to.scheme()) {
        ("https", "https") => true,
        ("http", "http" | "https") => is_loopback(from) || !is_loopback(to),
        _ => false,
    }
}

/// Whether both addresses have one scheme, host and port.
pub fn same_origin(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin() && a.origin().is_tuple()
}

/// Whether nobody between here and the host of `url` can read along.
pub fn is_private(url: &Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url))
}

/// Whether `url` is on this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => is_here(address),
        Some(Host::Ipv6(address)) => {
            let mapped = address.to_ipv4_mapped().is_some_and(is_here);
            address.is_loopback() || address.is_unspecified() || mapped
        }
        Some(Host::Domain(name)) => name.strip_suffix('.').unwrap_or(name) == "localhost",
        None => false,
    }
}

/// A connection to no address at all, `0.0.0.0`, is one to this machine.
fn is_here(address: Ipv4Addr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn the_token_goes_to_the_endpoint_over_tls_or_loopback_only() {
        let hub = url("https://huggingface.co");
        assert!(may_have_token(&hub, &url("https://huggingface.co/datasets/x")));
        assert!(may_have_token(&hub, &url("https://huggingface.co:443/x")));
        for other in [
            "http://huggingface.co/x",
            "https://huggingface.co:8443/x",
            "https://cdn.huggingface.co/x",
            "https://huggingface.co.evil.example/x",
            "https://huggingface.co@evil.example/x",
            "http://127.0.0.1/x",
        ] {
            assert!(!may_have_token(&hub, &url(other)), "{other}");
        }
        for local in ["http://127.0.0.1:8000", "http://[::1]:8000", "http://localhost:8000"] {
            assert!(may_have_token(&url(local), &url(&format!("{local}/x"))), "{local}");
        }
        for plain in ["http://mirror.example", "http://10.0.0.7", "http://localhost.example"] {
            assert!(!may_have_token(&url(plain), &url(&format!("{plain}/x"))), "{plain}");
        }
        assert!(!may_have_token(&url("http://127.0.0.1:1"), &url("http://127.0.0.1:2/x")));
    }

    #[test]
    fn redirects_neither_leave_tls_nor_reach_into_this_machine() {
        let (tls, plain, local) =
            (url("https://a.example"), url("http://a.example"), url("http://127.0.0.1:1"));
        assert!(may_follow(&tls, &url("https://cdn.example/x?sig=1")));
        assert!(!may_follow(&tls, &plain));
        assert!(!may_follow(&tls, &local));
        assert!(may_follow(&plain, &tls));
        assert!(may_follow(&plain, &url("http://b.example")));
        for other in ["[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "[::1]", "localhost.", "127.9.9.9"] {
            assert!(!may_follow(&plain, &url(&format!("http://{other}:1"))), "{other}");
        }
        assert!(may_follow(&plain, &url("http://[::ffff:10.0.0.7]")));
        assert!(!may_follow(&plain, &local));
        assert!(may_follow(&local, &url("http://127.0.0.1:2")));
        assert!(!may_follow(&tls, &url("file:///etc/passwd")));
    }
}

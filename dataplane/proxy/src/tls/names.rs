//! The certificate for the name that a client asks for (RFC 6066 section 3).

use std::{collections::HashMap, sync::Arc};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// The certificates of a listener, by the names that they are for.
#[derive(Debug)]
pub(super) struct Names {
    /// In the order of the configuration: one of them is for clients that ask for no name, or for one
    /// that is not there.
    all: Vec<Arc<CertifiedKey>>,
    /// By DNS name in lower case, as `chat.example` or `*.example`; several where their keys differ.
    named: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl Names {
    pub(super) fn new(certificates: Vec<CertifiedKey>) -> Self {
        let all: Vec<_> = certificates.into_iter().map(Arc::new).collect();
        let mut named: HashMap<_, Vec<_>> = HashMap::new();
        for certified in &all {
            let own = certified.cert.first();
            let parsed = own.and_then(|own| webpki::EndEntityCert::try_from(own).ok());
            for name in parsed.iter().flat_map(|parsed| parsed.valid_dns_names()) {
                let others = named.entry(name.to_ascii_lowercase()).or_default();
                others.push(Arc::clone(certified));
            }
        }
        Self { all, named }
    }

    /// Those for a name. A wildcard stands for one label (RFC 9525 section 6.3); a certificate for the
    /// very name comes before it.
    fn of(&self, name: &str) -> &[Arc<CertifiedKey>] {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let wildcard = || {
            let (_, parent) = name.split_once('.')?;
            self.named.get(&format!("*.{parent}"))
        };
        let found = self.named.get(&name).or_else(wildcard);
        found.map_or(&[], Vec::as_slice)
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let is_understood =
            |certified: &&Arc<CertifiedKey>| certified.key.choose_scheme(schemes).is_some();
        let named = hello.server_name().map_or(&[][..], |name| self.of(name));
        named.iter().chain(&self.all).find(is_understood).cloned()
    }
}

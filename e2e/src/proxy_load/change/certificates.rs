//! The certificate that is replaced, and clients that trust whoever signed it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rcgen::SanType;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::super::tls::Files;
use crate::cluster::{Authority, Purpose};
use crate::lab::Lab;
use crate::testing::Trust;

/// Whom the certificates are for.
const NAME: &str = "bench.example";

/// An authority, and where what it signs goes.
#[derive(Debug)]
pub(super) struct Certificates {
    authority: Authority,
    dirs: Vec<PathBuf>,
    /// What is to be shown to clients now.
    current: CertificateDer<'static>,
    /// In the first of the directories.
    pub(super) files: Files,
    pub(super) trust: Trust,
}

impl Certificates {
    /// The first certificate, in each of `dirs`.
    pub(super) fn new(lab: &Lab, dirs: Vec<PathBuf>) -> Result<Self> {
        let authority = Authority::new(&lab.client().dir().join("authority"))?;
        let (current, files) = issue(&authority, &dirs)?;
        let trusted = fs::read_to_string(authority.certificate())?;
        Ok(Self {
            authority,
            dirs,
            current,
            files,
            // A ticket would spare a client the certificate.
            trust: Trust::new(NAME, &trusted)?.without_tickets(),
        })
    }

    /// Puts another one in its place.
    pub(super) fn replace(&mut self) -> Result<()> {
        (self.current, self.files) = issue(&self.authority, &self.dirs)?;
        Ok(())
    }

    pub(super) fn is_current(&self, shown: Option<&CertificateDer<'_>>) -> bool {
        shown == Some(&self.current)
    }
}

fn issue(authority: &Authority, dirs: &[PathBuf]) -> Result<(CertificateDer<'static>, Files)> {
    let names = [SanType::DnsName(NAME.try_into()?)];
    let signed = authority.issue("bench", Purpose::Server, NAME, &[], &names)?;
    let (certificate, key) = (
        fs::read_to_string(&signed.certificate)?,
        fs::read_to_string(&signed.key)?,
    );
    let mut first = None;
    for dir in dirs {
        fs::create_dir_all(dir)?;
        let files = Files::write(dir, &certificate, &key)?;
        first.get_or_insert(files);
    }
    let current = CertificateDer::from_pem_slice(certificate.as_bytes())?;
    Ok((current, first.context("no directory for certificates")?))
}

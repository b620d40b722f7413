//! The images, made without docker: one static program each and nothing else.
//!
//! An archive is an OCI layout that `ctr images import` takes, and names the same blobs once more as
//! `docker load` and `kind load image-archive` want it.

mod build;
mod tar;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub use self::build::{Profile, build};
pub use self::tar::Tar;

/// Where images are named to come from while no registry has them.
pub const REGISTRY: &str = "localhost";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Image {
    /// Plans and pushes.
    Controller,
    /// What gateway nodes run.
    Dataplane,
}

impl Image {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Controller, Self::Dataplane];

    /// Name of the program, and of the image without registry and tag.
    pub fn name(self) -> &'static str {
        match self {
            Self::Controller => "wsha-controller",
            Self::Dataplane => "wsha-dataplane",
        }
    }

    /// Package that builds the program.
    fn package(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Dataplane => "dataplane",
        }
    }

    /// Who runs it unless the pod says otherwise: root only where addresses are changed.
    fn user(self) -> &'static str {
        match self {
            Self::Controller => "65532:65532",
            Self::Dataplane => "0:0",
        }
    }

    /// Its full name with this tag.
    pub fn reference(self, tag: &str) -> String {
        format!("{REGISTRY}/{}:{tag}", self.name())
    }

    /// The archive of the image with `program` in it, under the name `reference`.
    pub fn archive(self, program: &Path, reference: &str) -> Result<Vec<u8>> {
        let content = fs::read(program)
            .with_context(|| format!("cannot read the program {}", program.display()))?;
        let mut layer = Tar::default();
        layer.add(self.name(), 0o755, &content)?;
        let layer = Blob::new(LAYER, layer.finish());
        let config = Blob::json(
            CONFIG,
            &json!({
                "architecture": architecture(),
                "os": "linux",
                "config": {
                    "User": self.user(),
                    "Entrypoint": [format!("/{}", self.name())],
                    "Labels": {"org.opencontainers.image.title": self.name()},
                },
                "rootfs": {"type": "layers", "diff_ids": [layer.digest()]},
                "history": [{"created_by": "e2e/src/bin/image.rs"}],
            }),
        );
        let manifest = Blob::json(
            MANIFEST,
            &json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config.descriptor(),
                "layers": [layer.descriptor()],
            }),
        );
        let mut named = manifest.descriptor();
        named["annotations"] = json!({
            "io.containerd.image.name": reference,
            "org.opencontainers.image.ref.name": reference.rsplit_once(':').map_or("", |it| it.1),
        });
        let index = json!({"schemaVersion": 2, "manifests": [named]});
        let docker = json!([{
            "Config": config.path(),
            "RepoTags": [reference],
            "Layers": [layer.path()],
        }]);
        let mut archive = Tar::default();
        archive.add("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        archive.add("index.json", 0o644, index.to_string().as_bytes())?;
        archive.add("manifest.json", 0o644, docker.to_string().as_bytes())?;
        for blob in [&config, &manifest, &layer] {
            archive.add(&blob.path(), 0o644, &blob.content)?;
        }
        Ok(archive.finish())
    }
}

/// As Go, and so images, call the machine that this was built for.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Content that goes by its digest.
#[derive(Debug)]
struct Blob {
    media_type: &'static str,
    content: Vec<u8>,
    hash: String,
}

impl Blob {
    fn new(media_type: &'static str, content: Vec<u8>) -> Self {
        let mut hash = String::new();
        for byte in Sha256::digest(&content) {
            // A String takes everything.
            write!(hash, "{byte:02x}").ok();
        }
        Self {
            media_type,
            content,
            hash,
        }
    }

    fn json(media_type: &'static str, value: &Value) -> Self {
        Self::new(media_type, value.to_string().into_bytes())
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.hash)
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.hash)
    }

    fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media_type,
            "digest": self.digest(),
            "size": self.content.len(),
        })
    }
}

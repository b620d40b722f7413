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

pub use self::build::{Profile, build, build_from, target_dir};
use self::tar::Tar;

/// Where images are named to come from while no registry has them.
const REGISTRY: &str = "localhost";

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
    /// What other pods of a cluster run.
    Pod,
}

impl Image {
    /// Those of the product.
    pub const ALL: [Self; 2] = [Self::Controller, Self::Dataplane];

    /// Name of the program, and of the image without registry and tag.
    pub fn name(self) -> &'static str {
        match self {
            Self::Controller => "wsha-controller",
            Self::Dataplane => "wsha-dataplane",
            Self::Pod => "e2e-pod",
        }
    }

    /// Package that builds the program.
    fn package(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Dataplane => "dataplane",
            Self::Pod => "pod",
        }
    }

    /// Who runs it unless the pod says otherwise: root only where addresses are changed.
    fn user(self) -> &'static str {
        match self {
            Self::Controller | Self::Pod => "65532:65532",
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Unpacks an archive with the system's tar.
    fn unpack(archive: &[u8], into: &Path) {
        fs::create_dir_all(into).unwrap();
        let file = into.with_extension("tar");
        fs::write(&file, archive).unwrap();
        let mut tar = Command::new("tar");
        tar.arg("--extract")
            .arg("--file")
            .arg(&file)
            .arg("--directory");
        let output = tar.arg(into).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn json(path: &Path) -> Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn an_archive_holds_the_program_under_its_name() {
        let dir = std::env::temp_dir().join(format!("wsha-image-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let program = dir.join("program");
        let content = b"not a multiple of the block".repeat(100);
        fs::write(&program, &content).unwrap();
        let reference = Image::Controller.reference("1.2.3");
        let archive = Image::Controller.archive(&program, &reference).unwrap();
        assert_eq!(
            archive,
            Image::Controller.archive(&program, &reference).unwrap(),
            "the same input gives the same image"
        );
        let layout = dir.join("layout");
        unpack(&archive, &layout);
        assert_eq!(
            json(&layout.join("oci-layout"))["imageLayoutVersion"],
            "1.0.0"
        );
        // From the index to the program, each step by the digest of what it leads to.
        let blob = |descriptor: &Value| {
            let hash = descriptor["digest"]
                .as_str()
                .unwrap()
                .strip_prefix("sha256:")
                .unwrap();
            let path = layout.join("blobs/sha256").join(hash);
            let sum = Command::new("sha256sum").arg(&path).output().unwrap();
            assert!(String::from_utf8_lossy(&sum.stdout).starts_with(hash));
            assert_eq!(fs::metadata(&path).unwrap().len(), descriptor["size"]);
            path
        };
        let named = &json(&layout.join("index.json"))["manifests"][0];
        assert_eq!(
            named["annotations"]["io.containerd.image.name"],
            "localhost/wsha-controller:1.2.3"
        );
        let manifest = json(&blob(named));
        let config = json(&blob(&manifest["config"]));
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Entrypoint"], json!(["/wsha-controller"]));
        let layer = &manifest["layers"][0];
        assert_eq!(config["rootfs"]["diff_ids"][0], layer["digest"]);
        let root = dir.join("root");
        unpack(&fs::read(blob(layer)).unwrap(), &root);
        assert_eq!(fs::read(root.join("wsha-controller")).unwrap(), content);
        let docker = &json(&layout.join("manifest.json"))[0];
        assert_eq!(docker["RepoTags"][0], reference);
        for path in [&docker["Config"], &docker["Layers"][0]] {
            assert!(layout.join(path.as_str().unwrap()).is_file(), "{path}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}

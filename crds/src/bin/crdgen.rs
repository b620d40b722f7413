//! Writes the definition of `WebSocketHAPool` to `crds/yaml/` and to the chart; `--check` fails where
//! a file differs from what would be written.
#![forbid(unsafe_code)]

use std::{fs, path::Path, process::ExitCode};

fn main() -> ExitCode {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => {
            eprintln!("crdgen: unknown argument {other}; the only one is --check");
            return ExitCode::from(2);
        }
    };
    let files = [
        (crds::DEFINITION_FILE, crds::definition_yaml()),
        (crds::TEMPLATE_FILE, crds::definition_template()),
    ];
    for (file, text) in files {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = text.map_err(|error| format!("cannot write YAML: {error}"));
        if let Err(error) = text.and_then(|text| run(&path, &text, check)) {
            eprintln!("crdgen: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(path: &Path, text: &str, check: bool) -> Result<(), String> {
    let name = path.display();
    if check {
        let found =
            fs::read_to_string(path).map_err(|error| format!("cannot read {name}: {error}"))?;
        return if found == text {
            Ok(())
        } else {
            Err(format!(
                "{name} differs from the types; run crdgen and commit it"
            ))
        };
    }
    fs::write(path, text).map_err(|error| format!("cannot write {name}: {error}"))
}

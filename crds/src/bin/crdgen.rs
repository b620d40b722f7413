//! Writes the definition of `WebSocketHAPool` to `crds/yaml/`; `--check` fails where the file
//! differs from what would be written.
#![forbid(unsafe_code)]

use std::{fs, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(crds::DEFINITION_FILE);
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => {
            eprintln!("crdgen: unknown argument {other}; the only one is --check");
            return ExitCode::from(2);
        }
    };
    match run(&path, check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crdgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: &PathBuf, check: bool) -> Result<(), String> {
    let name = path.display();
    let text = crds::definition_yaml().map_err(|error| format!("cannot write YAML: {error}"))?;
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

//! The committed definition is the generated one.

use std::{fs, path::Path};

#[test]
fn committed_definition_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(crds::DEFINITION_FILE);
    let committed = fs::read_to_string(path).unwrap();
    assert_eq!(
        committed,
        crds::definition_yaml().unwrap(),
        "the types changed: run `cargo run -p crds --bin crdgen` and commit the result"
    );
}

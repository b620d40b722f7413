//! What must hold for any text given as a file of manifests.

use plan::{manifests, node_config};

/// A file by itself.
pub fn file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let files = [("pool.yaml".to_owned(), text.to_owned())];
    let read = manifests::accept(&files);
    assert_eq!(manifests::accept(&files), read, "the same each time");
    match read {
        Err(refusals) => {
            assert!(!refusals.is_empty(), "refused for something");
            for refusal in refusals {
                assert!(!refusal.message.is_empty() && !refusal.file.is_empty());
            }
        }
        // What every node is told survives being saved.
        Ok(accepted) => {
            for node in &accepted.objects.nodes {
                let Some(name) = &node.metadata.name else {
                    continue;
                };
                let Ok(config) = node_config(&accepted.plan, name) else {
                    continue;
                };
                for pool in config.pools.values() {
                    let saved = serde_json::to_string(pool).unwrap();
                    assert_eq!(
                        &serde_json::from_str::<node_api::Pool>(&saved).unwrap(),
                        pool
                    );
                }
            }
        }
    }
}

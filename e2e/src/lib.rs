//! Lab of network namespaces, demo, integration tests and benchmarks.

//! What must hold for any bytes given to a decoder. Shared by the fuzz targets and by the tests that
//! replay the corpus, which take in the file of their own decoders.
pub mod cuts;
pub mod frames;
pub mod http;
pub mod http2;
pub mod manifests;
pub mod netlink;
pub mod proxy_protocol;
pub mod stream;
pub mod wire;

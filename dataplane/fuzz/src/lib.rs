//! Laws of the decoders, for the fuzz targets.
pub mod laws;

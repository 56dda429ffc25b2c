//! Owns `tests/` and `benches/`; see `crates/` for the libraries and programs.

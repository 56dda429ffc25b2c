//! The position of a run in its dataset, as checkpoints store it.

use serde::{Deserialize, Serialize};

/// Where a run stands: the reference's state dict, with its five names.
///
/// It names neither ranks nor workers, so that a run continues on any world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct State {
    /// The epoch that is being served, from 0.
    pub epoch: u64,
    /// Samples of it that all ranks together have been given.
    pub sample_in_epoch: u64,
    /// Canonical nodes of the run, which decide the order.
    pub num_canonical_nodes: u64,
    /// Seed of the run.
    pub shuffle_seed: u64,
    /// Physical nodes that the run was started with. Absent from old checkpoints.
    #[serde(default)]
    pub initial_physical_nodes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_s_state_dict_is_read_and_written() {
        let text = "{\"epoch\":1,\"sample_in_epoch\":28,\"num_canonical_nodes\":2,\
                    \"shuffle_seed\":77,\"initial_physical_nodes\":1}";
        let state: State = serde_json::from_str(text).unwrap();
        assert_eq!(state.initial_physical_nodes, Some(1));
        assert_eq!(serde_json::to_string(&state).unwrap(), text);
    }

    #[test]
    fn old_checkpoints_lack_the_initial_nodes() {
        let text = r#"{"epoch":0,"sample_in_epoch":4,"num_canonical_nodes":8,"shuffle_seed":9}"#;
        let state: State = serde_json::from_str(text).unwrap();
        assert_eq!(state.initial_physical_nodes, None);
    }
}

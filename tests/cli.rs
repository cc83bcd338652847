//! The command line, walked as a person would: the real binary against a node of its own.

#[path = "support/node.rs"]
mod node;

use node::Node;

#[test]
fn a_node_serves_and_stops_cleanly() {
    let mut node = Node::start(&[]);

    let status = node.stop();

    assert!(status.success(), "{}", node.log());
    node.start_again();
    node.kill();
}

//! Many nodes, Node's servers among them, as one.

mod wire;

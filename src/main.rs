mod accounts; mod config; mod data; mod keys; mod token; fn main() {}

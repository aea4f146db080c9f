//! The pipe in front of the server that it was made for: a real redis-server, with the
//! programs that come with it, and with a second redis-server that replicates it.

mod addresses;
mod clients;
mod load;
mod pubsub;
mod replication;
mod resp;

//! The pipe before what it was made for: a real redis-server, with the
//! programs that come with it, and with another one that replicates it.

mod clients;
mod load;
mod pubsub;
mod replication;
mod resp;

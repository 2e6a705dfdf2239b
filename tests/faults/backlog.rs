//! A long outage is over: what waits on the disk is sent without being taken into memory.

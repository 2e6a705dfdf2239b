//! A leaf: certificates, keys and their checks, and what is wrong with them in plain words.

//! The small words of a configuration and how each is written.

"""What all proofs share: the gateway as a process, an app that keeps books, and senders."""

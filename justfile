# What a developer types most. `just` alone lists it.

default:
    @just --list

# Formatting, lints and the tests of the pure rooms and the actors
check: lint
    cargo nextest run --workspace --lib --bins || cargo test --workspace --lib --bins

# Formatting and lints
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# Every test, with real processes
test:
    cargo test --workspace

# Three nodes, one killed under load
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# One benchmark, for example: just bench ingest --nodes 3
bench *ARGS:
    cargo run --release -- bench {{ARGS}}

# Licences, advisories and sources of the dependencies (needs cargo-deny)
deny:
    cargo deny check

# What runs before a change lands
ci:
    .ci/run

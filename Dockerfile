# One image for every role: the subcommand says which. Built in two stages; what runs is the binary, certificates and curl for health checks.
#
#   docker build -t flagmint .
#   docker run --rm flagmint --help

FROM rust:1.95-trixie AS build
# What the crates with C code need (librdkafka and the OpenSSL compiled into it).
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make perl \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# No PostgreSQL is put into the binary: roles are given the URL of one.
RUN cargo build --release --locked --bin flagmint \
    && strip --strip-debug target/release/flagmint

FROM debian:trixie-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data --create-home flagmint
COPY --from=build /src/target/release/flagmint /usr/local/bin/flagmint
USER 10001
WORKDIR /data
VOLUME /data
ENV FLAGMINT_LISTEN=0.0.0.0:3000 FLAGMINT_DATA_DIR=/data
EXPOSE 3000
STOPSIGNAL SIGTERM
ENTRYPOINT ["flagmint"]
CMD ["--help"]

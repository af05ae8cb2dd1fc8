# syntax=docker/dockerfile:1
# The gateway alone in an image without anything else: a static program with a profile of itself, and the certificate authorities of
# the system. `docker build --build-arg TRAINED=no .` leaves the profile out, which takes a third of the time.
ARG RUST=1.95.0-bookworm

FROM rust:${RUST} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# Debian's own versions of the day.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates cmake musl-tools python3 \
    && rm -rf /var/lib/apt/lists/* \
    && rustup target add "$(uname -m)-unknown-linux-musl" \
    && rustup component add llvm-tools
WORKDIR /src
COPY . .
ARG TRAINED=yes
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    tests/bench/image "${TRAINED}" /tollgate

FROM scratch
LABEL org.opencontainers.image.title="Tollgate" \
      org.opencontainers.image.description="An egress gateway that proves who calls, puts the key on the call, and keeps budgets." \
      org.opencontainers.image.source="https://github.com/tollgate/tollgate" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chmod=0555 /tollgate /usr/bin/tollgate
ENV PATH=/usr/bin TOLLGATE_CONFIG=/etc/tollgate/settings/tollgate.yaml
USER 65532:65532
ENTRYPOINT ["/usr/bin/tollgate"]
CMD ["serve"]

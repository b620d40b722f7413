# Both images, from the top of the repository:
#   for name in controller dataplane; do docker build --target $name -t localhost/wsha-$name:0.1.0 .; done
# `make images` makes the same without docker.
FROM rust:1.95-bookworm AS source
WORKDIR /src
ENV BUILD="cargo rustc --locked --profile" STATIC="-C target-feature=+crt-static -C strip=symbols"
COPY . .

FROM source AS build-controller
RUN $BUILD release --package controller --bin wsha-controller -- $STATIC

FROM source AS build-dataplane
RUN $BUILD dist --package dataplane --bin wsha-dataplane -- $STATIC

FROM scratch AS controller
LABEL org.opencontainers.image.title=wsha-controller
COPY --from=build-controller /src/target/release/wsha-controller /wsha-controller
USER 65532:65532
ENTRYPOINT ["/wsha-controller"]

FROM scratch AS dataplane
LABEL org.opencontainers.image.title=wsha-dataplane
COPY --from=build-dataplane /src/target/dist/wsha-dataplane /wsha-dataplane
# The agent changes addresses; the chart gives the proxy a user of its own.
USER 0:0
ENTRYPOINT ["/wsha-dataplane"]

# The image runs as nobody in particular, holds the one static binary, and serves
# on every address of its container. Keep the two Debian releases the same.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags "-s -w -X riverbeat/cmd/command.version=${VERSION}" -o /riverbeat ./cmd/riverbeat

# Not distroless: health checks need a shell, and bash opens a TCP connection by
# itself. Time zones are in the binary; the certificates come from the first stage.
FROM debian:bookworm-slim
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /riverbeat /riverbeat
ENV RIVERBEAT_LISTEN=0.0.0.0:8080
EXPOSE 8080
USER 65532:65532
ENTRYPOINT ["/riverbeat"]
CMD ["serve"]

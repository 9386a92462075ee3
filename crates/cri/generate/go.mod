module larder.dev/crates/cri/generate

go 1.26

require k8s.io/cri-api v0.34.4

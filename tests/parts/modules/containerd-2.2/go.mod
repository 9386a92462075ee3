module larder.dev/parts/containerd-2.2

go 1.26

require github.com/containerd/containerd/v2 v2.2.9

module larder.dev/parts/containerd-2.4

go 1.26.6

require github.com/containerd/containerd/v2 v2.4.2

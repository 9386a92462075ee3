module larder.dev/parts/crio-1.34

go 1.26

require github.com/cri-o/cri-o v1.34.0

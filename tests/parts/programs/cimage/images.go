package main

import (
	"context"
	"slices"
	"strings"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/storage"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What an engine says of the images in its store, with the names that CRI-O gives them (its internal/storage).

// described is an image as the CRI has it: each of its names is known with each of its digests, that of the index included.
func (engine *engine) described(image *storage.Image) *runtime.Image {
	result := &runtime.Image{Id: image.ID, Spec: &runtime.ImageSpec{Image: image.ID}, Size_: 1}
	if size, err := engine.store.ImageSize(image.ID); err == nil && size > 0 {
		result.Size_ = uint64(size)
	}
	for _, name := range image.Names {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			continue
		}
		if _, ok := named.(reference.Digested); !ok {
			result.RepoTags = append(result.RepoTags, name)
		}
		for _, digest := range image.Digests {
			known := named.Name() + "@" + digest.String()
			if !slices.Contains(result.RepoDigests, known) {
				result.RepoDigests = append(result.RepoDigests, known)
			}
		}
	}
	return result
}

// find looks an image up by its id, or by one of its names.
func (engine *engine) find(name string) (*storage.Image, error) {
	images, err := engine.store.Images()
	if err != nil {
		return nil, err
	}
	if named, err := reference.ParseNormalizedNamed(name); err == nil {
		name = reference.TagNameOnly(named).String()
	}
	for i := range images {
		known := engine.described(&images[i])
		if known.Id == strings.TrimPrefix(name, "sha256:") ||
			slices.Contains(known.RepoTags, name) || slices.Contains(known.RepoDigests, name) {
			return &images[i], nil
		}
	}
	return nil, nil
}

func (engine *engine) ListImages(context.Context, *runtime.ListImagesRequest) (*runtime.ListImagesResponse, error) {
	images, err := engine.store.Images()
	if err != nil {
		return nil, err
	}
	answer := &runtime.ListImagesResponse{}
	for i := range images {
		answer.Images = append(answer.Images, engine.described(&images[i]))
	}
	return answer, nil
}

func (engine *engine) ImageStatus(_ context.Context, asked *runtime.ImageStatusRequest) (*runtime.ImageStatusResponse, error) {
	image, err := engine.find(asked.GetImage().GetImage())
	if err != nil || image == nil {
		return &runtime.ImageStatusResponse{}, err
	}
	return &runtime.ImageStatusResponse{Image: engine.described(image)}, nil
}

// RemoveImage by an id takes the image away, by a name that name, and the image only with its last one.
func (engine *engine) RemoveImage(_ context.Context, asked *runtime.RemoveImageRequest) (*runtime.RemoveImageResponse, error) {
	name := asked.GetImage().GetImage()
	image, err := engine.find(name)
	if err != nil {
		return nil, err
	}
	if image == nil {
		return nil, status.Errorf(codes.NotFound, "no image is called %s", name)
	}
	if image.ID != strings.TrimPrefix(name, "sha256:") && len(image.Names) > 1 && slices.Contains(image.Names, name) {
		return &runtime.RemoveImageResponse{}, engine.store.RemoveNames(image.ID, []string{name})
	}
	_, err = engine.store.DeleteImage(image.ID, true)
	return &runtime.RemoveImageResponse{}, err
}

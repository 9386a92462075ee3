package main

import (
	"context"
	// References with a digest are refused where its algorithm is not linked.
	_ "crypto/sha256"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/directory"
	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/manifest"
	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/types"
)

// pull asks for one image, as kubelet's request makes CRI-O fetch it.
type pull struct {
	Reference string `json:"reference"`
	// Into is a folder, which gets the image's files.
	Into string `json:"into"`
	// Policy is policy.json; without one everything is accepted.
	Policy string `json:"policy"`
	// RegistriesDir is registries.d; without one no signatures are looked for.
	RegistriesDir string `json:"registries_d"`
	// CertDir is certs.d.
	CertDir  string `json:"certs_d"`
	AuthFile string `json:"auth_file"`
	Username string `json:"username"`
	Password string `json:"password"`
}

// fetch does what PullImage in CRI-O's internal/storage does, but for where the image is put.
func (asked *pull) fetch(system types.SystemContext) (string, error) {
	policy := anything()
	if asked.Policy != "" {
		var err error
		if policy, err = signature.NewPolicyFromFile(asked.Policy); err != nil {
			return "", err
		}
	}
	system.RegistriesDirPath = asked.RegistriesDir
	if system.RegistriesDirPath == "" {
		system.RegistriesDirPath = "/nonexistent"
	}
	system.DockerPerHostCertDirPath = asked.CertDir
	system.AuthFilePath = asked.AuthFile
	if asked.Username != "" {
		system.DockerAuthConfig = &types.DockerAuthConfig{Username: asked.Username, Password: asked.Password}
	}
	return transfer(asked.Reference, asked.Into, policy, system, copy.Options{})
}

// anything is the policy that accepts every image.
func anything() *signature.Policy {
	return &signature.Policy{Default: []signature.PolicyRequirement{signature.NewPRInsecureAcceptAnything()}}
}

// transfer copies an image into a folder; the digest of the manifest that is there then. The contexts of options are set here.
func transfer(text, into string, policy *signature.Policy, system types.SystemContext, options copy.Options) (string, error) {
	named, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		return "", err
	}
	from, err := docker.NewReference(reference.TagNameOnly(named))
	if err != nil {
		return "", err
	}
	to, err := directory.NewReference(into)
	if err != nil {
		return "", err
	}
	allowed, err := signature.NewPolicyContext(policy)
	if err != nil {
		return "", err
	}
	defer func() { _ = allowed.Destroy() }()
	// Without a home it would remember in a folder of the machine where blobs were seen.
	system.BlobInfoCacheDir = into + ".cache"
	options.SourceCtx, options.DestinationCtx = &system, &system
	bytes, err := copy.Image(context.Background(), allowed, to, from, &options)
	if err != nil {
		return "", err
	}
	digest, err := manifest.Digest(bytes)
	return digest.String(), err
}

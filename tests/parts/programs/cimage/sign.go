package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/directory"
	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/manifest"
	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/signature/sigstore"
	"github.com/containers/image/v5/types"
)

// signing asks for a copy of an image with a sigstore signature of its manifest.
type signing struct {
	Reference string `json:"reference"`
	// Into is a folder, which gets the image's files and beside them `signature-1`.
	Into string `json:"into"`
	// Keys is a folder, which gets `private.key` and `public.key` unless they are there.
	Keys string `json:"keys"`
}

func (asked *signing) sign(system types.SystemContext) (string, error) {
	private := filepath.Join(asked.Keys, "private.key")
	passphrase := []byte("of no secret")
	if _, err := os.Stat(private); err != nil {
		pair, err := sigstore.GenerateKeyPair(passphrase)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(private, pair.PrivateKey, 0o600); err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(asked.Keys, "public.key"), pair.PublicKey, 0o644); err != nil {
			return "", err
		}
	}
	named, err := reference.ParseNormalizedNamed(asked.Reference)
	if err != nil {
		return "", err
	}
	from, err := docker.NewReference(reference.TagNameOnly(named))
	if err != nil {
		return "", err
	}
	to, err := directory.NewReference(asked.Into)
	if err != nil {
		return "", err
	}
	policy := &signature.Policy{Default: []signature.PolicyRequirement{signature.NewPRInsecureAcceptAnything()}}
	allowed, err := signature.NewPolicyContext(policy)
	if err != nil {
		return "", err
	}
	defer func() { _ = allowed.Destroy() }()
	system.RegistriesDirPath = "/nonexistent"
	system.DockerInsecureSkipTLSVerify = types.OptionalBoolTrue
	system.BlobInfoCacheDir = asked.Into + ".cache"
	bytes, err := copy.Image(context.Background(), allowed, to, from, &copy.Options{
		SourceCtx:                        &system,
		DestinationCtx:                   &system,
		SignBySigstorePrivateKeyFile:     private,
		SignSigstorePrivateKeyPassphrase: passphrase,
		SignIdentity:                     reference.TagNameOnly(named),
	})
	if err != nil {
		return "", err
	}
	digest, err := manifest.Digest(bytes)
	return digest.String(), err
}

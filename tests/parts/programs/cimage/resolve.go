package main

import (
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/pkg/sysregistriesv2"
	"github.com/containers/image/v5/types"
)

// source is an endpoint that would be tried, in order.
type source struct {
	Location  string `json:"location"`
	Insecure  bool   `json:"insecure"`
	Reference string `json:"reference"`
	// Blocked says whether the client refuses to ask there, by the entry that is for the endpoint itself.
	Blocked bool `json:"blocked"`
}

// resolution is what becomes of one reference.
type resolution struct {
	// Error is set when no source can be named at all.
	Error string `json:"error,omitempty"`
	// Found says whether an entry of the configuration is for it.
	Found   bool     `json:"found"`
	Prefix  string   `json:"prefix"`
	Blocked bool     `json:"blocked"`
	Sources []source `json:"sources"`
}

func resolve(system *types.SystemContext, text string) resolution {
	named, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		return resolution{Error: "reference: " + err.Error()}
	}
	named = reference.TagNameOnly(named)
	registry, err := sysregistriesv2.FindRegistry(system, named.Name())
	if err != nil {
		return resolution{Error: err.Error()}
	}
	result := resolution{Found: registry != nil}
	if registry == nil {
		// As newImageSource does it.
		registry = &sysregistriesv2.Registry{
			Endpoint: sysregistriesv2.Endpoint{Location: named.String()},
			Prefix:   named.String(),
		}
	}
	result.Prefix, result.Blocked = registry.Prefix, registry.Blocked
	sources, err := registry.PullSourcesFromReference(named)
	if err != nil {
		result.Error = err.Error()
		return result
	}
	for _, pull := range sources {
		endpoint, err := sysregistriesv2.FindRegistry(system, pull.Reference.Name())
		if err != nil {
			return resolution{Error: err.Error()}
		}
		result.Sources = append(result.Sources, source{
			Location:  pull.Endpoint.Location,
			Insecure:  pull.Endpoint.Insecure,
			Reference: pull.Reference.String(),
			Blocked:   endpoint != nil && endpoint.Blocked,
		})
	}
	return result
}

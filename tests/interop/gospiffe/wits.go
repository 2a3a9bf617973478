// A judge of the WIT profile: go-spiffe's WITSource, and a workload proof made with Go's own
// signature arithmetic.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"

	"github.com/spiffe/go-spiffe/v2/exp/svid/witsvid"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func (work *workload) wits(ctx context.Context) (said, error) {
	source, err := workloadapi.NewWITSource(ctx, workloadapi.WithClientOptions(work.address))
	if err != nil {
		return nil, err
	}
	work.wit = source
	return said{}, nil
}

// Of one SPIFFE ID; its signature is verified by the source's bundles, its key compared.
func (work *workload) heldWit(id string) (*witsvid.SVID, *ecdsa.PrivateKey, error) {
	wanted, err := spiffeid.FromString(id)
	if err != nil {
		return nil, nil, err
	}
	svid, err := work.wit.GetWITSVIDForID(wanted)
	if err != nil {
		return nil, nil, err
	}
	if _, err := witsvid.ParseAndValidate(svid.Marshal(), work.wit); err != nil {
		return nil, nil, err
	}
	key, ok := svid.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(svid.PublicKey) {
		return nil, nil, errors.New("the key is not the one of the WIT-SVID")
	}
	return svid, key, nil
}

func (work *workload) newerWit(ctx context.Context, id, before string) (said, error) {
	for {
		svid, _, err := work.heldWit(id)
		if err != nil {
			return nil, err
		}
		if svid.Marshal() != before {
			return said{"id": svid.ID.String(), "token": svid.Marshal()}, nil
		}
		if err := work.wit.WaitUntilUpdated(ctx); err != nil {
			return nil, err
		}
	}
}

func (work *workload) prove(id, audience string) (said, error) {
	svid, key, err := work.heldWit(id)
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256([]byte(svid.Marshal()))
	head, _ := json.Marshal(said{"alg": "ES256", "typ": "wpt+jwt"})
	claims, _ := json.Marshal(said{
		"aud": audience,
		"exp": time.Now().Add(30 * time.Second).Unix(),
		"jti": rand.Text(),
		"wth": base64.RawURLEncoding.EncodeToString(hash[:]),
	})
	input := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(claims)
	digest := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		return nil, err
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return said{
		"token": svid.Marshal(),
		"proof": input + "." + base64.RawURLEncoding.EncodeToString(signature),
	}, nil
}

func (work *workload) witBundles(ctx context.Context) (said, error) {
	client, err := workloadapi.New(ctx, work.address)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	set, err := client.FetchWITBundles(ctx)
	if err != nil {
		return nil, err
	}
	keys := said{}
	for _, bundle := range set.Bundles() {
		kids := []string{}
		for kid := range bundle.WITAuthorities() {
			kids = append(kids, kid)
		}
		keys[bundle.TrustDomain().Name()] = kids
	}
	return keys, nil
}

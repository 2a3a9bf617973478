// A judge of the Workload API: a workload as anybody writes it with go-spiffe. It is told what to
// do, one line each, and says what came of it in one line of JSON; its listener and its watcher
// speak by themselves, as "event".
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/exp/svid/witsvid"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

const patience = 20 * time.Second

type said map[string]any

type workload struct {
	address workloadapi.ClientOption
	x509    *workloadapi.X509Source
	jwt     *workloadapi.JWTSource
	wit     *workloadapi.WITSource
	mouth   sync.Mutex
}

func live(address string) error {
	work := &workload{address: workloadapi.WithAddr(address)}
	work.say(said{"ready": os.Getpid()})
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		answer, err := work.do(words[0], words[1:])
		if err != nil {
			answer = said{"error": err.Error()}
		}
		work.say(answer)
	}
	return lines.Err()
}

func (work *workload) say(what said) {
	work.mouth.Lock()
	defer work.mouth.Unlock()
	json.NewEncoder(os.Stdout).Encode(what)
}

func (work *workload) do(command string, words []string) (said, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch command {
	case "sources": // both sources, which live on and follow each change
		return work.sources(ctx)
	case "svid": // what the source holds now
		svid, err := work.x509.GetX509SVID()
		return told(svid), err
	case "watch": // an event for each state
		go workloadapi.WatchX509Context(context.Background(), watcher{work}, work.address)
		return said{}, nil
	case "bundles": // of all trust domains
		return work.bundles(ctx)
	case "jwt": // audience
		svid, err := work.jwt.FetchJWTSVID(ctx, jwtsvid.Params{Audience: words[0]})
		if err != nil {
			return nil, err
		}
		return said{"id": svid.ID.String(), "token": svid.Marshal()}, nil
	case "validate": // audience, token: by the Workload API
		svid, err := workloadapi.ValidateJWTSVID(ctx, words[1], words[0], work.address)
		if err != nil {
			return nil, err
		}
		return said{"id": svid.ID.String(), "assurance": svid.Claims["accredit"]}, nil
	case "verify": // audience, token: by the source's bundles
		svid, err := jwtsvid.ParseAndValidate(words[1], work.jwt, []string{words[0]})
		if err != nil {
			return nil, err
		}
		return said{"id": svid.ID.String()}, nil
	case "wits": // the WIT source
		return work.wits(ctx)
	case "wit": // SPIFFE ID, the token that is known: the next one
		return work.newerWit(ctx, words[0], strings.Join(words[1:], ""))
	case "prove": // SPIFFE ID, audience
		return work.prove(words[0], words[1])
	case "wit-bundles": // of all trust domains
		return work.witBundles(ctx)
	case "jwt-as-wit": // token
		_, err := witsvid.ParseAndValidate(words[0], work.wit)
		return said{}, err
	case "wit-as-jwt": // audience, token
		_, err := jwtsvid.ParseAndValidate(words[1], work.jwt, []string{words[0]})
		return said{}, err
	case "serve": // the only SPIFFE ID that may connect
		return work.serve(words[0])
	case "dial": // address, the only SPIFFE ID that may answer
		return work.dial(ctx, words[0], words[1])
	}
	return nil, fmt.Errorf("no command %q", command)
}

func (work *workload) sources(ctx context.Context) (said, error) {
	var err error
	options := workloadapi.WithClientOptions(work.address)
	if work.x509, err = workloadapi.NewX509Source(ctx, options); err != nil {
		return nil, err
	}
	if work.jwt, err = workloadapi.NewJWTSource(ctx, options); err != nil {
		return nil, err
	}
	svid, err := work.x509.GetX509SVID()
	return told(svid), err
}

func (work *workload) bundles(ctx context.Context) (said, error) {
	x509, err := workloadapi.FetchX509Bundles(ctx, work.address)
	if err != nil {
		return nil, err
	}
	jwt, err := workloadapi.FetchJWTBundles(ctx, work.address)
	if err != nil {
		return nil, err
	}
	authorities, keys := said{}, said{}
	for _, bundle := range x509.Bundles() {
		authorities[bundle.TrustDomain().Name()] = len(bundle.X509Authorities())
	}
	for _, bundle := range jwt.Bundles() {
		kids := []string{}
		for kid := range bundle.JWTAuthorities() {
			kids = append(kids, kid)
		}
		sort.Strings(kids)
		keys[bundle.TrustDomain().Name()] = kids
	}
	return said{"x509": authorities, "jwt": keys}, nil
}

func (work *workload) serve(client string) (said, error) {
	allowed, err := spiffeid.FromString(client)
	if err != nil {
		return nil, err
	}
	config := tlsconfig.MTLSServerConfig(work.x509, work.x509, tlsconfig.AuthorizeID(allowed))
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			work.answer(connection.(*tls.Conn))
		}
	}()
	return said{"address": listener.Addr().String()}, nil
}

func (work *workload) answer(connection *tls.Conn) {
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(patience))
	if err := connection.Handshake(); err != nil {
		work.say(said{"event": "refused", "error": err.Error()})
		return
	}
	io.WriteString(connection, "welcome")
	work.say(said{"event": "peer", "id": peer(connection)})
}

func (work *workload) dial(ctx context.Context, address, server string) (said, error) {
	allowed, err := spiffeid.FromString(server)
	if err != nil {
		return nil, err
	}
	config := tlsconfig.MTLSClientConfig(work.x509, work.x509, tlsconfig.AuthorizeID(allowed))
	plain, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	connection := tls.Client(plain, config)
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(patience))
	// In TLS 1.3 a server's refusal is heard only when the client reads.
	greeting, err := io.ReadAll(connection)
	if err != nil {
		return nil, err
	}
	return said{"peer": peer(connection), "greeting": string(greeting)}, nil
}

type watcher struct{ work *workload }

func (watch watcher) OnX509ContextUpdate(update *workloadapi.X509Context) {
	what := told(update.DefaultSVID())
	what["event"] = "new"
	watch.work.say(what)
}

func (watch watcher) OnX509ContextWatchError(err error) {
	watch.work.say(said{"event": "lost", "error": err.Error()})
}

func told(svid *x509svid.SVID) said {
	if svid == nil {
		return said{}
	}
	return said{"id": svid.ID.String(), "serial": svid.Certificates[0].SerialNumber.String()}
}

func peer(connection *tls.Conn) string {
	id, err := x509svid.IDFromCert(connection.ConnectionState().PeerCertificates[0])
	if err != nil {
		return err.Error()
	}
	return id.String()
}
